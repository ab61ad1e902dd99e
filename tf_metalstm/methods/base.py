"""A few-shot method is a Keras model over episodes.

    query_outputs [E, N*Q, N] = method({support_inputs, support_labels, query_inputs})

All of the adaptation happens inside `call`, so `compile`, `fit`, `predict`, metrics,
callbacks and distribution strategies are Keras's own. What is learned across
episodes is the model's trainable weights.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.objectives import CLASSIFICATION, Objective

# Without a loop oneDNN keeps what the gradient of the last max-pools needs, a tenth of the time at
# 84 x 84. More episodes would make the graph too large: it holds each of their T updates.
_UNROLLED = 4


class FewShotMethod(keras.Model, abc.ABC):
    """Adapts to a support set, then answers queries.

    A subclass says how one episode is treated: `adapt` and `query_outputs`. Between
    them travels a nested structure of tensors, so that the two can be exported as
    signatures of their own.

    Args:
        objective: what an episode asks for.
        vectorize_episodes: treat the E episodes of a step as one batch instead of one after
            the other. The same numbers but for rounding; faster where an episode is so small
            that the overhead of its operations counts.

    Call arguments:
        inputs: a dict of support_inputs [E, N*K, h, w, c], support_labels [E, N*K] and
            query_inputs [E, N*Q, h, w, c]; in regression of [E, K, D], [E, K, 1], [E, Q, D].
        training: True in meta-training.

    Returns:
        query logits, [E, N*Q, N]; in regression the values, [E, Q, 1].
    """

    # Which way to normalize queries was chosen; None where there is no choice.
    query_normalization: str | None = None

    def __init__(
        self,
        objective: Objective = CLASSIFICATION,
        vectorize_episodes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.objective = objective
        self.vectorize_episodes = vectorize_episodes

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """N, outputs of an answer."""

    @property
    def num_updates(self) -> int | None:
        """T, updates outside meta-training; None where adapting is something else."""
        return None

    @abc.abstractmethod
    def describe_normalization(self) -> str:
        """Returns the batch-norm mode in words, to stand beside every reported number."""

    @abc.abstractmethod
    def adapt(self, support: Support, training: bool = False) -> Any:
        """Returns what was learned from the support set of one episode, nested tensors."""

    @abc.abstractmethod
    def query_outputs(self, adapted: Any, query_inputs: Tensor, training: bool = False) -> Tensor:
        """Returns the outputs [B, N] for queries [B, ...] under what `adapt` returned."""

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Adapts to each of the E support sets and answers its queries."""
        training = bool(training)
        # Keras may hand integer inputs over as floats.
        label_dtype = tf.int32 if self.objective.has_classes else self.compute_dtype

        def one_episode(episode: Mapping[str, Tensor]) -> Tensor:
            labels = tf.cast(episode["support_labels"], label_dtype)
            adapted = self.adapt(Support(episode["support_inputs"], labels), training)
            return self.query_outputs(adapted, episode["query_inputs"], training)

        if self.vectorize_episodes:
            return tf.vectorized_map(one_episode, dict(inputs), fallback_to_while_loop=False)
        num_episodes = inputs["support_inputs"].shape[0]
        if num_episodes is not None and num_episodes <= _UNROLLED:
            return tf.stack(
                [
                    one_episode({name: value[number] for name, value in inputs.items()})
                    for number in range(num_episodes)
                ]
            )
        return tf.map_fn(one_episode, dict(inputs), fn_output_signature=self.compute_dtype)
