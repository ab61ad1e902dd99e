"""A few-shot method is a Keras model over episodes.

    query_logits [E, N*Q, N] = method({support_inputs, support_labels, query_inputs})

All of the adaptation happens inside `call`, so `compile`, `fit`, `predict`, metrics,
callbacks and distribution strategies are Keras's own. What is learned across
episodes is the model's trainable weights.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor


class FewShotMethod(keras.Model, abc.ABC):
    """Adapts to a support set, then classifies queries.

    A subclass says how one episode is treated: `adapt` and `query_logits`. Between
    them travels a nested structure of tensors, so that the two can be exported as
    signatures of their own.

    Call arguments:
        inputs: a dict of support_inputs [E, N*K, h, w, c], support_labels [E, N*K] and
            query_inputs [E, N*Q, h, w, c].
        training: True in meta-training.

    Returns:
        query logits, [E, N*Q, N].
    """

    @abc.abstractmethod
    def adapt(self, support: Support) -> Any:
        """Returns what was learned from the support set of one episode, nested tensors."""

    @abc.abstractmethod
    def query_logits(self, adapted: Any, query_inputs: Tensor, training: bool = False) -> Tensor:
        """Returns the logits [B, N] of query images [B, h, w, c] under what `adapt` returned."""

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        def one_episode(episode: Mapping[str, Tensor]) -> Tensor:
            # Keras may hand integer inputs over as floats.
            labels = tf.cast(episode["support_labels"], tf.int32)
            adapted = self.adapt(Support(episode["support_inputs"], labels))
            return self.query_logits(adapted, episode["query_inputs"], training=bool(training))

        return map_episodes(one_episode, inputs, self.compute_dtype)


def map_episodes(
    function: Callable[[Mapping[str, Tensor]], Tensor], episodes: Mapping[str, Tensor], dtype: str
) -> Tensor:
    """Applies a function of one episode to each of E, one after the other.

    Args:
        function: a dict of tensors without the leading E -> a tensor.
        episodes: a dict of tensors that begin with E.
        dtype: of the result.

    Returns:
        The results stacked along a leading E.
    """
    return tf.map_fn(function, dict(episodes), fn_output_signature=dtype)
