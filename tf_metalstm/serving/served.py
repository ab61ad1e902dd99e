"""A method with preprocessing and checks: it takes pixels and returns probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.graphs import graph_function, unconverted
from tf_metalstm.methods.base import LOSSES
from tf_metalstm.methods.feature_method import FeatureMethod
from tf_metalstm.methods.few_shot import (
    FewShotMethod,
    class_mask,
    num_classes,
    without_absent_classes,
)

# A request must not use up the memory of a server.
MAX_STEPS, MAX_CLASSES = 1000, 1000


class AdaptedClasses(NamedTuple):
    """The result of adapting to a support set.

    learned: what the method's `adapt` returned, nested tensors.
    class_mask: 1 for a label that the support set has, 0 for others, float32 [N]; () in
        regression.
    """

    learned: Any
    class_mask: Tensor


@dataclass(frozen=True)
class ServedMethod:
    """The method with its preprocessing.

    Args:
        method: the trained method.
        normalization: normalization of pixels in the training; None for inputs that are no images.
        input_shape: shape of one input, (h, w, c) for images.
        num_way: N, the largest number of classes, None for any number; in regression the number of
            values of an answer.

    A method may treat classes differently, because the last layer of c_0 has a different row for
    each. Then it adapts once to each of the N cyclic relabellings of the classes, and returns the
    mean of the probabilities. So the answer does not depend on the numbers of the classes.

    Raises:
        ValueError: the method normalizes its queries together (it is transductive).
    """

    method: FewShotMethod
    normalization: Normalization | None
    input_shape: tuple[int, ...]
    num_way: int | None

    def __post_init__(self) -> None:
        _ = self.relabellings  # it reads weights, which is not possible while a graph is traced
        if self.method.query_normalization == "batch":
            raise ValueError(
                "query_normalization=batch is transductive, the answer to an image depends on "
                "the images beside it, but an exported model is asked about single images: pass "
                "query_normalization=running or query_normalization=support."
            )

    @property
    def has_classes(self) -> bool:
        """Whether the method classifies; else its labels and answers are real numbers."""
        return self.method.objective.has_classes

    @functools.cached_property
    def relabellings(self) -> int:
        """Number of relabellings of the classes that an answer is the mean of."""
        alike = not self.has_classes or self.method.is_symmetric
        return 1 if alike or self.num_way is None else self.num_way

    @property
    def takes_images(self) -> bool:
        """Whether its inputs are images."""
        return self.normalization is not None

    @property
    def compares_features(self) -> bool:
        """Whether the method only uses the features of images, so that features can be stored."""
        return isinstance(self.method, FeatureMethod)

    @property
    def input_name(self) -> str:
        """Name of the inputs in the signatures, after support_ or query_."""
        return "images" if self.takes_images else "inputs"

    @property
    def output_name(self) -> str:
        """Name of the outputs in the signatures."""
        return "probabilities" if self.has_classes else "outputs"

    @property
    def num_steps(self) -> int | None:
        """T, the default number of updates; None for a method without updates."""
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
            inputs: inputs [B, ...]; pixels 0 ... 255 for images.
            labels: labels in [0, N), [B]; some may be missing. In regression [B, D].
            num_steps: T, a scalar; None for that of the training. Only for methods with updates.

        Returns:
            The adapted classes, and further tensors to draw, by name.

        Raises:
            tf.errors.InvalidArgumentError: when run: the support set is empty, the numbers of
            labels
                and inputs differ, a label is not valid, or T is not in 0 ... 1,000.
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
            features = self.method.support_features(inputs)
            return self.adapt_features(features, labels, num_steps), {}
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
        if self.has_classes:  # the order matters if an update takes a part of the images
            order = _shot_by_shot(labels, self._num_way(labels))
            inputs, labels = tf.gather(inputs, order), tf.gather(labels, order)
        return self.method.adapt_and_trace(Support(inputs, labels), num_steps)

    @unconverted
    def _each_relabelling(self, function: Callable[[Tensor], Any]) -> Any:
        """Returns the stacked results of a function of a shift of the labels, 0 ... N - 1."""
        shifts = tf.range(self.relabellings)
        graph = graph_function(function).get_concrete_function(tf.TensorSpec([], tf.int32))
        spec = tf.nest.map_structure(
            lambda one: tf.TensorSpec(one.shape, one.dtype), graph.structured_outputs
        )
        return tf.map_fn(graph, shifts, fn_output_signature=spec)

    def _num_way(self, labels: Tensor) -> Tensor | int:
        return num_classes(labels) if self.num_way is None else self.num_way

    def features(self, inputs: Tensor) -> Tensor:
        """Returns the features of images, [B, ...], for a method that compares features.

        All images go through the network at once, because LiteRT does not take loops.

        Raises:
            tf.errors.InvalidArgumentError: when run: there are no inputs.
        """
        check = tf.debugging.assert_positive(tf.shape(inputs)[0], f"there are no {self.input_name}")
        with tf.control_dependencies([check]):
            return self.method.features(self._normalized(tf.identity(inputs)))

    def adapt_features(
        self, features: Tensor, labels: Tensor, num_steps: Tensor | None = None
    ) -> AdaptedClasses:
        """Adapts to the features of a support set.

        Args:
            features: the result of `features`, [B, ...].
            labels: labels in [0, N), [B].
            num_steps: as in `adapt`.

        Raises:
            tf.errors.InvalidArgumentError: when run: as `adapt`.
        """
        checks = _support_checks("features", features, labels) + _class_checks(labels, self.num_way)
        if num_steps is not None:
            checks += _step_checks(num_steps)
        with tf.control_dependencies(checks):
            features, labels = tf.identity(features), tf.identity(labels)
            num_steps = None if num_steps is None else tf.identity(num_steps)
        num_way = self._num_way(labels)
        order = _shot_by_shot(labels, num_way)
        features, labels = tf.gather(features, order), tf.gather(labels, order)
        if num_steps is None:
            learned = self.method.summarize(features, labels, num_way)
        else:
            learned = self.method.summarize_after(features, labels, num_way, num_steps)
        return AdaptedClasses(learned, class_mask(labels, num_way))

    def feature_logits(self, adapted: AdaptedClasses, features: Tensor) -> Tensor:
        """Returns logits [B, N] from features of queries; the lowest number for absent classes."""
        outputs = self.method.compare(adapted.learned, features)
        return without_absent_classes(outputs, adapted.class_mask)

    @unconverted
    def answers(
        self,
        adapted: AdaptedClasses,
        inputs: Tensor,
        embed: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Returns probabilities [B, N], 0 for classes that the support set lacks; or values.

        Args:
            adapted: the result of `adapt`.
            inputs: queries [B, ...], in the form of support inputs.
            embed: the traced `features`, for a method that compares features.

        Raises:
            tf.errors.InvalidArgumentError: when run: there are no inputs.
        """
        # Empty batches are refused, because oneDNN's convolution returns a wrong shape for them.
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
        # The trace of every update takes memory.
        tf.debugging.assert_less_equal(
            num_steps, MAX_STEPS, f"num_steps must be at most {MAX_STEPS}"
        ),
    ]


def _shot_by_shot(labels: Tensor, num_way: Tensor | int) -> Tensor:
    """Returns the order of training: one image of each class, then the next one of each."""
    same = tf.cast(labels[:, tf.newaxis] == labels, tf.int32)
    shot = tf.reduce_sum(tf.linalg.band_part(same, -1, 0), axis=1)  # of its class, so far
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
