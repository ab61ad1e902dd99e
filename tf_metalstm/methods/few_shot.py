"""Methods over episodes: adapt to a support set, then answer queries.

    query_outputs [E, N*Q, N] = method({support_inputs, support_labels, query_inputs})

The whole adaptation happens inside `call`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_metalstm.data.tasks import IMAGES
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.graphs import unconverted
from tf_metalstm.methods.base import Method
from tf_metalstm.objectives import CLASSIFICATION, Objective

# Without a loop oneDNN keeps the data for the gradients of the last max-pools. This saves a tenth
# of the time at 84 x 84. With more episodes the graph would be too large: it has T updates of each.
_UNROLLED = 4


class FewShotMethod(Method, abc.ABC):
    """Adapts to a support set, then answers queries.

    A subclass defines `adapt` and `query_outputs` for one episode. `adapt` returns nested tensors
    and `query_outputs` takes them, so both can be exported as separate signatures.

    Args:
        objective: the loss and the score of an episode.
        vectorize_episodes: compute the E episodes of a step as one batch instead of one after
            the other. Apart from rounding the result is the same. It is faster for episodes so
            small that most of the time is overhead of operations.

    Call arguments:
        inputs: a dict of support_inputs [E, N*K, h, w, c], support_labels [E, N*K] and
            query_inputs [E, N*Q, h, w, c]; in regression of [E, K, D], [E, K, 1], [E, Q, D].
        training: True in meta-training.

    Returns:
        query logits, [E, N*Q, N]; in regression the values, [E, Q, 1]. Outside training, a
        class that is not in the support set has the lowest possible logit.
    """

    kinds: ClassVar[tuple[str, ...]] = (IMAGES,)
    is_episodic: ClassVar[bool] = True

    def __init__(
        self,
        objective: Objective = CLASSIFICATION,
        vectorize_episodes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(objective, **kwargs)
        self.vectorize_episodes = vectorize_episodes

    @property
    def num_outputs(self) -> int | None:
        """N, the largest number of classes of an episode; None for any number."""
        return None

    @property
    def served_variables(self) -> list[keras.Variable]:
        """The variables that `adapt` and `query_outputs` need and an export has. Default: all."""
        return self.variables

    @property
    def is_symmetric(self) -> bool:
        """Whether permuting the classes only permutes the answers."""
        return True

    @property
    def transductive_mode(self) -> str | None:
        """A batch-norm mode, in words, that normalizes all queries together.

        `query_outputs` uses it with `training`. None if the method uses it anyway, or has no
        such mode.
        """
        return None

    @abc.abstractmethod
    def adapt(self, support: Support, training: bool = False) -> Any:
        """Adapts to the support set of one episode and returns the result, nested tensors."""

    @abc.abstractmethod
    def query_outputs(self, adapted: Any, query_inputs: Tensor, training: bool = False) -> Tensor:
        """Returns the outputs [B, N] for queries [B, ...], given what `adapt` returned."""

    def adapt_and_trace(
        self, support: Support, num_steps: Tensor | None = None
    ) -> tuple[Any, dict[str, Tensor]]:
        """Adapts as `adapt` does, and also returns tensors to draw, by name; may be {}.

        Args:
            support: the support set of one episode.
            num_steps: T, a scalar, for a method with updates; None for the default.
        """
        del num_steps
        return self.adapt(support), {}

    def trace(self, task: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns tensors to draw of the adaptation to one episode, by name."""
        support = Support(task["support_inputs"], self._labels(task["support_labels"]))
        return self.adapt_and_trace(support)[1]

    def _labels(self, labels: Tensor) -> Tensor:
        # Keras may pass integer inputs as floats.
        return tf.cast(labels, tf.int32 if self.objective.has_classes else self.compute_dtype)

    def one_episode(self, episode: dict[str, Tensor], training: bool) -> Tensor:
        """Adapts to the support set of one episode and answers its queries, [B, N]."""
        labels = episode["support_labels"]
        adapted = self.adapt(Support(episode["support_inputs"], labels), training)
        outputs = self.query_outputs(adapted, episode["query_inputs"], training)
        if training or not self.objective.has_classes:
            return outputs
        return without_absent_classes(outputs, class_mask(labels, tf.shape(outputs)[-1]))

    def answers_in_both_modes(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the outputs in the method's own mode and in `transductive_mode`, [E, 2, B, N].

        It adapts once to each support set.
        """

        def one_episode(episode: dict[str, Tensor]) -> Tensor:
            labels, queries = episode["support_labels"], episode["query_inputs"]
            adapted = self.adapt(Support(episode["support_inputs"], labels))
            outputs = tf.stack(
                [self.query_outputs(adapted, queries, training) for training in (False, True)]
            )
            if not self.objective.has_classes:
                return outputs
            return without_absent_classes(outputs, class_mask(labels, tf.shape(outputs)[-1]))

        return self.each_episode(one_episode, inputs)

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Adapts to each of the E support sets and answers its queries."""
        training = bool(training)
        return self.each_episode(lambda episode: self.one_episode(episode, training), inputs)

    @unconverted
    def each_episode(
        self, one_episode: Callable[[dict[str, Tensor]], Tensor], inputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Applies a function to each of E episodes; its results get a leading E.

        Args:
            one_episode: a function of the tensors of an episode, without the leading E.
            inputs: the tensors of E episodes, as `call` takes them.
        """
        inputs = {**inputs, "support_labels": self._labels(inputs["support_labels"])}
        if self.vectorize_episodes:
            return tf.vectorized_map(one_episode, inputs, fallback_to_while_loop=False)
        num_episodes = inputs["support_labels"].shape[0]
        if num_episodes is not None and num_episodes <= _UNROLLED:
            return tf.stack(
                [
                    one_episode({name: value[number] for name, value in inputs.items()})
                    for number in range(num_episodes)
                ]
            )
        return tf.map_fn(one_episode, inputs, fn_output_signature=self.compute_dtype)


def class_mask(labels: Tensor, num_way: Tensor) -> Tensor:
    """Returns 1 for each class that occurs in labels [B], else 0, float32 [N]."""
    return tf.reduce_max(tf.one_hot(labels, num_way, dtype=tf.float32), axis=0)


def without_absent_classes(outputs: Tensor, mask: Tensor) -> Tensor:
    """Returns logits [B, N] with the lowest possible number for classes whose mask [N] is 0."""
    return tf.where(mask > 0.0, outputs, outputs.dtype.min)


def num_classes(labels: Tensor) -> Tensor:
    """Returns N, the highest of labels [B] plus one, as int32; labels may have any type."""
    return tf.cast(tf.reduce_max(labels), tf.int32) + 1
