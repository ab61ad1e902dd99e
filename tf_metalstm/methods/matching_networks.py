"""Matching networks: Vinyals et al., "Matching Networks for One Shot Learning", NIPS 2016.

A query is compared with every support image, and their labels vote (equation 1):

    P(y | x, S) = sum over i of a(x, x_i) y_i
    a(x, x_i)   = softmax over i of cos(f(x), g(x_i))

Without context f = g is a convolutional network. With *full-context embeddings* f and g depend on
the whole support set; g' and f' are the outputs of the network:

    g(x_i)     = h_forward_i + h_backward_i + g'(x_i)     an LSTM over the support set each way
    h_k        = LSTM(f'(x), [h_{k-1}, r_{k-1}]) + f'(x)  K steps, equations 3 and 4
    r_{k-1}    = sum over i of softmax over i of (h_{k-1} . g(x_i)) g(x_i)
    f(x)       = h_K

The code of Ravi & Larochelle instead uses the sums of the cosines of each class as logits:
`similarity="sum"`. In both forms the cosines can be multiplied by `cosine_scale`. Without it the
logits are small, because cosines are between -1 and 1, and the loss stays large even when a network
separates the classes well.

    paper        code                  shape
    f, g         query, support        [B, D], [S, D]
    a            attention             [B, S]
    K            attention_steps       number
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import TrainedOptions
from tf_metalstm.methods.embedding_method import EmbeddingMethod
from tf_metalstm.methods.metric import LabelledFeatures, cosines
from tf_metalstm.options import option
from tf_metalstm.parts import Part

SIMILARITIES = ("softmax", "sum")


@dataclass(frozen=True)
class MatchingNetworksOptions(TrainedOptions):
    """Options of matching networks."""

    similarity: str = option(
        "softmax", "How cosines vote: their softmax, or their sum.", choices=SIMILARITIES
    )
    cosine_scale: float = option(1.0, "Factor on the cosines.", above=0)
    full_context: bool = option(
        False,
        "Let the features of an image depend on the whole support set.",
        alike=True,
        settled=True,
    )
    attention_steps: int = option(
        3,
        "Number of attention passes over the support set for each query.",
        at_least=1,
        alike=True,
        only_with={"full_context": True},
    )


def votes(similarities: Tensor, labels: Tensor, num_way: int, similarity: str) -> Tensor:
    """Returns logits of the classes, [B, N].

    Args:
        similarities: similarities of B queries with S support images, [B, S].
        labels: labels of the support images, in [0, N), [S].
        num_way: N.
        similarity: "softmax" for log sum over i of a_i y_i (equation 1), or "sum" for the sum of
            the similarities.
    """
    of_class = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=similarities.dtype)  # [S, N]
    if similarity == "sum":
        return tf.matmul(similarities, of_class)
    attention = tf.nn.softmax(similarities)
    smallest = tf.constant(similarities.dtype.as_numpy_dtype(1e-30))
    return tf.math.log(tf.maximum(tf.matmul(attention, of_class), smallest))


@keras.saving.register_keras_serializable("tf_metalstm")
class SupportContext(keras.layers.Layer):
    """g: features of support images that depend on all support images, [S, D] -> [S, D]."""

    def build(self, input_shape: Any) -> None:
        """Creates the two LSTMs."""
        size = input_shape[-1]
        options = {"return_sequences": True, "dtype": self.dtype_policy}
        self.forward = keras.layers.LSTM(size, name="forward", **options)
        self.backward = keras.layers.LSTM(size, go_backwards=True, name="backward", **options)
        for lstm in (self.forward, self.backward):
            lstm.build((None, None, size))
        self.built = True

    def call(self, features: Tensor) -> Tensor:
        """Returns forward + backward + features."""
        sequence = features[tf.newaxis]
        backward = tf.reverse(self.backward(sequence), axis=[1])
        return (self.forward(sequence) + backward)[0] + features


@keras.saving.register_keras_serializable("tf_metalstm")
class QueryContext(keras.layers.Layer):
    """f: features of queries that depend on the support set, by an LSTM with attention.

    Args:
        attention_steps: K.
    """

    def __init__(self, attention_steps: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        MatchingNetworksOptions(attention_steps=attention_steps)  # checks it
        self.attention_steps = attention_steps

    def build(self, input_shape: Any) -> None:
        """Creates the LSTM cell."""
        size = input_shape[-1]
        self.cell = keras.layers.LSTMCell(size, dtype=self.dtype_policy, name="cell")
        self.cell.build((None, 2 * size))  # its inputs: f'(x) and r
        self.built = True

    def call(self, features: Tensor, support: Tensor) -> Tensor:
        """Returns h_K for queries [B, D] and support features [S, D].

        The result does not depend on the order of the support images.
        """
        hidden = features
        cell = tf.zeros_like(features)
        for _ in range(self.attention_steps):
            attention = tf.nn.softmax(tf.matmul(hidden, support, transpose_b=True))
            read = tf.matmul(attention, support)
            out, (_, cell) = self.cell(tf.concat([features, read], axis=-1), [hidden, cell])
            hidden = out + features
        return hidden


@keras.saving.register_keras_serializable("tf_metalstm")
class MatchingNetworks(EmbeddingMethod):
    """Classifies a query by the votes of all support images, weighted by similarity.

    In meta-training batch norm uses the moments of the support images for these, and the moments
    of the queries for those. After training it uses the running statistics of the training.

    Args:
        embedding: images -> features; it may have dropout.
        training_way: N of the training episodes, if it is the same for all; the compiled training
            step needs it.
        full_context: whether features depend on the whole support set.
        attention_steps: K, of the full-context embedding of queries.
        similarity: "softmax" or "sum", see `votes`.
        cosine_scale: factor on the cosines; positive.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "matching_networks",
        "Matching networks",
        "Vinyals et al., NIPS 2016",
        MatchingNetworksOptions,
        needs=("learner",),
    )
    one_pass: ClassVar[bool] = False

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        full_context: bool = False,
        attention_steps: int = 3,
        similarity: str = "softmax",
        cosine_scale: float = 1.0,
        name: str = "matching_networks",
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, name=name, **kwargs)
        MatchingNetworksOptions(None, similarity, cosine_scale)  # checks them
        self.similarity = similarity
        self.cosine_scale = cosine_scale
        self.attention_steps = attention_steps
        self.support_context: SupportContext | None = None
        self.query_context: QueryContext | None = None
        if full_context:
            self.support_context = SupportContext(name="support_context")
            self.query_context = QueryContext(attention_steps, name="query_context")
            self.support_context.build(embedding.output_shape)
            self.query_context.build(embedding.output_shape)
        self.built = True

    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Any:
        """Returns the embeddings g of the support images, not normalized."""
        if self.support_context is not None:
            features = self.support_context(features)
        return LabelledFeatures(features, tf.identity(labels))

    def compare(
        self, summary: LabelledFeatures, features: Tensor, training: bool = False
    ) -> Tensor:
        """Returns logits [B, N]."""
        if self.query_context is not None:
            features = self.query_context(features, summary.features)
        unit = [tf.math.l2_normalize(x, axis=-1) for x in (summary.features, features)]
        similarities = self.cosine_scale * cosines(*unit)
        num_way = self._num_way(summary.labels, training)
        return votes(similarities, summary.labels, num_way, self.similarity)

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        return {
            **super().get_config(),
            "full_context": self.query_context is not None,
            "attention_steps": self.attention_steps,
            "similarity": self.similarity,
            "cosine_scale": self.cosine_scale,
        }
