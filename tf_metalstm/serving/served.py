"""A method with all that a client need not know: it takes pixels and gives probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.methods.base import LOSSES
from tf_metalstm.methods.feature_method import FeatureMethod
from tf_metalstm.methods.few_shot import (
    FewShotMethod,
    class_mask,
    num_classes,
    without_absent_classes,
)

# One request must not take a server's memory.
MAX_STEPS, MAX_CLASSES = 1000, 1000


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
        num_way: N, the most classes that it tells apart, None for any number; in regression the
            numbers of an answer.

    Where the method does not treat all classes alike, because the last layer of c_0 has a row of
    its own for each, it adapts once to each of the N cyclic relabellings of the classes, and the
    probabilities are their mean: then the answer does not depend on which class is which number.

    Raises:
        ValueError: the queries of the method are normalized with each other.
    """

    method: FewShotMethod
    normalization: Normalization | None
    input_shape: tuple[int, ...]
    num_way: int | None

    def __post_init__(self) -> None:
        _ = self.relabellings  # looks at weights, which a graph that is traced cannot
        if self.method.query_normalization == "batch":
            raise ValueError(
                "query_normalization=batch is transductive, the answer to an image depends on "
                "the images beside it, but an exported model is asked about single images: pass "
                "query_normalization=running or query_normalization=support."
            )

    @property
    def has_classes(self) -> bool:
        """Whether it classifies; else its labels and answers are real numbers."""
        return self.method.objective.has_classes

    @functools.cached_property
    def relabellings(self) -> int:
        """How many relabellings of the classes an answer is the mean of."""
        alike = not self.has_classes or self.method.is_symmetric
        return 1 if alike or self.num_way is None else self.num_way

    @property
    def takes_images(self) -> bool:
        """Whether its inputs are images."""
        return self.normalization is not None

    @property
    def compares_features(self) -> bool:
        """Whether it sees nothing of an image but its features: then these can be kept."""
        return isinstance(self.method, FeatureMethod)

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
        self,
        inputs: Tensor,
        labels: Tensor,
        num_steps: Tensor | None = None,
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
            num_steps = None if num_steps is None else tf.identity(num_steps)
        inputs = self._normalized(inputs)
        if self.compares_features:
            return self.adapt_features(self.method.support_features(inputs), labels), {}
        mask: Tensor = ()
        if self.has_classes:
            mask = class_mask(labels, self._num_way(labels))
        if self.relabellings == 1:
            learned, trace = self._adapt(inputs, labels, num_steps)
        else:
            learned, traces = self._each_relabelling(
                lambda shift: self._adapt(inputs, (labels + shift) % self.num_way, num_steps)
            )
            trace = {name: values[0] for name, values in traces.items()}
        extras = {"support_losses" if n == LOSSES else n: values for n, values in trace.items()}
        return AdaptedClasses(learned, mask), extras

    def _adapt(
        self, inputs: Tensor, labels: Tensor, num_steps: Tensor | None
    ) -> tuple[Any, dict[str, Tensor]]:
        if self.has_classes:  # the order counts where updates take the images in turn
            order = _shot_by_shot(labels, self._num_way(labels))
            inputs, labels = tf.gather(inputs, order), tf.gather(labels, order)
        return self.method.adapt_and_trace(Support(inputs, labels), num_steps)

    def _each_relabelling(self, function: Callable[[Tensor], Any]) -> Any:
        """Returns what a function gives for the shifts 0 ... N - 1 of the labels, stacked."""
        shifts = tf.range(self.relabellings)
        graph = tf.function(function).get_concrete_function(tf.TensorSpec([], tf.int32))
        spec = tf.nest.map_structure(
            lambda one: tf.TensorSpec(one.shape, one.dtype), graph.structured_outputs
        )
        return tf.map_fn(function, shifts, fn_output_signature=spec)

    def _num_way(self, labels: Tensor) -> Tensor | int:
        return num_classes(labels) if self.num_way is None else self.num_way

    def features(self, inputs: Tensor) -> Tensor:
        """Returns the features of images, [B, ...], of a method that compares them.

        All of them go through the network at once; loops are not what LiteRT can be given.

        Raises:
            tf.errors.InvalidArgumentError: when run: there are no inputs.
        """
        check = tf.debugging.assert_positive(tf.shape(inputs)[0], f"there are no {self.input_name}")
        with tf.control_dependencies([check]):
            return self.method.features(self._normalized(tf.identity(inputs)))

    def adapt_features(self, features: Tensor, labels: Tensor) -> AdaptedClasses:
        """Adapts to a support set by its features.

        Args:
            features: as `features` returned them, [B, ...].
            labels: [B], in [0, N).

        Raises:
            tf.errors.InvalidArgumentError: when run: as `adapt`.
        """
        checks = _support_checks("features", features, labels) + _class_checks(labels, self.num_way)
        with tf.control_dependencies(checks):
            features, labels = tf.identity(features), tf.identity(labels)
        num_way = self._num_way(labels)
        order = _shot_by_shot(labels, num_way)
        features, labels = tf.gather(features, order), tf.gather(labels, order)
        learned = self.method.summarize(features, labels, num_way)
        return AdaptedClasses(learned, class_mask(labels, num_way))

    def feature_logits(self, adapted: AdaptedClasses, features: Tensor) -> Tensor:
        """Returns logits [B, N] of queries by their features, the lowest for absent classes."""
        outputs = self.method.compare(adapted.learned, features)
        return without_absent_classes(outputs, adapted.class_mask)

    def answers(
        self,
        adapted: AdaptedClasses,
        inputs: Tensor,
        embed: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Returns probabilities [B, N], 0 for classes that the support set lacks; or values.

        Args:
            adapted: what was learned.
            inputs: [B, ...], as those of the support set.
            embed: `features`, for a method that has them, where it is traced already.

        Raises:
            tf.errors.InvalidArgumentError: when run: there are no inputs.
        """
        # Not every kernel takes an empty batch: oneDNN's convolution returns another shape.
        check = tf.debugging.assert_positive(
            tf.shape(inputs)[0], f"there are no query_{self.input_name}"
        )
        with tf.control_dependencies([check]):
            inputs = tf.identity(inputs)
        if self.compares_features:
            features = (embed or self.features)(inputs)
            return tf.nn.softmax(self.feature_logits(adapted, features))
        queries = self._normalized(inputs)
        if self.relabellings == 1:
            return self._answers(adapted.learned, adapted.class_mask, queries)
        several = tf.map_fn(
            lambda one: self._answers(one[0], tf.roll(adapted.class_mask, one[1], 0), queries),
            (adapted.learned, tf.range(self.relabellings)),
            fn_output_signature=tf.TensorSpec([None, self.num_way], self.method.compute_dtype),
        )
        back = [tf.roll(several[shift], -shift, axis=1) for shift in range(self.relabellings)]
        return tf.add_n(back) / self.relabellings

    def _answers(self, learned: Any, mask: Tensor, queries: Tensor) -> Tensor:
        outputs = self.method.query_outputs(learned, queries, training=False)
        return tf.nn.softmax(without_absent_classes(outputs, mask)) if self.has_classes else outputs

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
        # The trace of every update is kept.
        tf.debugging.assert_less_equal(
            num_steps, MAX_STEPS, f"num_steps must be at most {MAX_STEPS}"
        ),
    ]


def _shot_by_shot(labels: Tensor, num_way: Tensor | int) -> Tensor:
    """Returns the order that has one image of each class, then the next of each, as in training."""
    same = tf.cast(labels[:, tf.newaxis] == labels, tf.int32)
    shot = tf.reduce_sum(tf.linalg.band_part(same, -1, 0), axis=1)  # how many so far
    return tf.argsort(shot * num_way + labels, stable=True)


def _class_checks(labels: Tensor, num_way: int | None) -> list[Any]:
    if num_way is None:
        num_way = MAX_CLASSES
        outside = f"support_labels must be in [0, {num_way})"
    else:
        outside = f"support_labels must be in [0, {num_way}): the model has {num_way} ways"
    return [
        tf.debugging.assert_non_negative(labels, outside),
        tf.debugging.assert_less(labels, num_way, outside),
    ]
