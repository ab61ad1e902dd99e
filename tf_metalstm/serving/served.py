"""A method with all that a client need not know: it takes pixels and gives probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.methods.base import FewShotMethod
from tf_metalstm.methods.gradient_based import GradientBasedMethod

MAX_STEPS = 1000


class AdaptedClasses(NamedTuple):
    """What was learned from a support set.

    learned: what the method's `adapt` returned, nested tensors.
    class_mask: 1 for a label that the support set has, 0 for others, float32 [N]; in regression
        nothing, ().
    """

    learned: Any
    class_mask: Tensor


@dataclass(frozen=True)
class ServedMethod:
    """The method, and what surrounds it.

    Args:
        method: the trained method.
        normalization: of pixels, that of the training; None for inputs that are no images.
        input_shape: of one input, (h, w, c) of images.
        num_way: N, columns of the probabilities; in regression the numbers of an answer.

    Raises:
        ValueError: the queries of the method are normalized with each other.
    """

    method: FewShotMethod
    normalization: Normalization | None
    input_shape: tuple[int, ...]
    num_way: int

    def __post_init__(self) -> None:
        if self.method.query_normalization == "batch":
            raise ValueError(
                "--query_normalization=batch is transductive, the answer to an image depends on "
                "the images beside it, but an exported model is asked about single images: pass "
                "--query_normalization=running or --query_normalization=support."
            )

    @property
    def has_classes(self) -> bool:
        """Whether it classifies; else its labels and answers are real numbers."""
        return self.method.objective.has_classes

    @property
    def takes_images(self) -> bool:
        """Whether its inputs are images."""
        return self.normalization is not None

    @property
    def input_name(self) -> str:
        """How the signatures call what is put in, after support_ or query_."""
        return "images" if self.takes_images else "inputs"

    @property
    def output_name(self) -> str:
        """How the signatures call what comes out."""
        return "probabilities" if self.has_classes else "outputs"

    @property
    def num_steps(self) -> int | None:
        """T, the updates it makes unless asked otherwise; None for a method that makes none."""
        return self.method.num_updates

    def input_spec(self) -> tf.TensorSpec:
        """Returns type and shape of the inputs."""
        return tf.TensorSpec([None, *self.input_shape], tf.float32)

    def label_spec(self) -> tf.TensorSpec:
        """Returns type and shape of the labels of a support set."""
        if self.has_classes:
            return tf.TensorSpec([None], tf.int32)
        return tf.TensorSpec([None, self.num_way], tf.float32)

    def adapt(
        self, inputs: Tensor, labels: Tensor, num_steps: Tensor | None = None
    ) -> tuple[AdaptedClasses, dict[str, Tensor]]:
        """Adapts to a support set.

        Args:
            inputs: [B, ...], pixels 0 ... 255 where they are images.
            labels: [B], in [0, N), not necessarily all of them; in regression [B, D].
            num_steps: T, a scalar; None for that of the training. Only for methods that have one.

        Returns:
            What was learned, and what else there is to see, by name.

        Raises:
            tf.errors.InvalidArgumentError: when run: an empty support set, other than one label
                an input, a label that is none, fewer than 0 or more than 1,000 updates.
        """
        checks = _support_checks(self.input_name, inputs, labels)
        if self.has_classes:
            checks += _class_checks(labels, self.num_way)
        if num_steps is not None:
            checks += _step_checks(num_steps)
        with tf.control_dependencies(checks):
            inputs, labels = tf.identity(inputs), tf.identity(labels)
            if self.has_classes:  # the order counts where updates take the images in turn
                order = _shot_by_shot(labels, self.num_way)
                inputs, labels = tf.gather(inputs, order), tf.gather(labels, order)
            support = Support(self._normalized(inputs), labels)
            num_steps = None if num_steps is None else tf.identity(num_steps)
        mask: Tensor = ()
        if self.has_classes:
            present = tf.one_hot(labels, self.num_way, dtype=tf.float32)
            mask = tf.reduce_max(present, axis=0)
        if not isinstance(self.method, GradientBasedMethod):
            return AdaptedClasses(self.method.adapt(support), mask), {}
        learned, trajectory = self.method.adapt_with_trajectory(support, num_steps=num_steps)
        extras = {
            "support_losses": trajectory.losses,
            "forget_gates": trajectory.forget,
            "input_gates": trajectory.input,
        }
        return AdaptedClasses(learned, mask), extras

    def answers(self, adapted: AdaptedClasses, inputs: Tensor) -> Tensor:
        """Returns probabilities [B, N], 0 for classes that the support set lacks; or values.

        Raises:
            tf.errors.InvalidArgumentError: when run: there are no inputs.
        """
        # Not every kernel takes an empty batch: oneDNN's convolution returns another shape.
        check = tf.debugging.assert_positive(
            tf.shape(inputs)[0], f"there are no query_{self.input_name}"
        )
        with tf.control_dependencies([check]):
            queries = self._normalized(tf.identity(inputs))
        outputs = self.method.query_outputs(adapted.learned, queries, training=False)
        if not self.has_classes:
            return outputs
        return tf.nn.softmax(tf.where(adapted.class_mask > 0.0, outputs, outputs.dtype.min))

    def _normalized(self, inputs: Tensor) -> Tensor:
        if self.normalization is not None:
            inputs = self.normalization(inputs)
        return tf.cast(inputs, self.method.compute_dtype)


def _support_checks(name: str, inputs: Tensor, labels: Tensor) -> list[Any]:
    return [
        tf.debugging.assert_positive(tf.size(labels), "the support set is empty"),
        tf.debugging.assert_equal(
            tf.shape(inputs)[0], tf.shape(labels)[0], f"as many support_labels as support_{name}"
        ),
    ]


def _step_checks(num_steps: Tensor) -> list[Any]:
    return [
        tf.debugging.assert_non_negative(num_steps, "num_steps must not be negative"),
        # One request must not take a server's memory: the gates of every update are kept.
        tf.debugging.assert_less_equal(
            num_steps, MAX_STEPS, f"num_steps must be at most {MAX_STEPS}"
        ),
    ]


def _shot_by_shot(labels: Tensor, num_way: int) -> Tensor:
    """Returns the order that has one image of each class, then the next of each, as in training."""
    same = tf.cast(labels[:, tf.newaxis] == labels, tf.int32)
    shot = tf.reduce_sum(tf.linalg.band_part(same, -1, 0), axis=1)  # how many so far
    return tf.argsort(shot * num_way + labels, stable=True)


def _class_checks(labels: Tensor, num_way: int) -> list[Any]:
    outside = f"support_labels must be in [0, {num_way}): the model has {num_way} ways"
    return [
        tf.debugging.assert_non_negative(labels, outside),
        tf.debugging.assert_less(labels, num_way, outside),
    ]
