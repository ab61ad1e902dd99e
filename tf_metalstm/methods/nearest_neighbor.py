"""The nearest neighbour baseline of Ravi & Larochelle, ICLR 2017, section 5.1 and table 1.

One network is trained on all training classes together, an ordinary classifier; its
linear layer is then thrown away. In an episode a query has the class of the support image
whose features x are the most similar to its own, z:

    cos(x, z) = x . z / (|x| |z|)
    logit of class n = max over support images i of class n of cos(x_i, z)

The floor below it takes the pixels themselves for features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.base import FewShotMethod


class LabelledFeatures(NamedTuple):
    """What is remembered of a support set.

    features: of each image, [B, D].
    labels: of each image, [B].
    """

    features: Tensor
    labels: Tensor


def cosines(support: Tensor, queries: Tensor) -> Tensor:
    """Returns the cosine of each query with each support image, [B, D] x [S, D] -> [B, S].

    Args:
        support: features of length 1, [S, D].
        queries: features of length 1, [B, D].
    """
    return tf.matmul(queries, support, transpose_b=True)


def nearest(similarities: Tensor, labels: Tensor, num_way: int) -> Tensor:
    """Returns for each class the similarity of its nearest support image, [B, N].

    Args:
        similarities: of B queries with S support images, [B, S].
        labels: of the support images, in [0, N), [S].
        num_way: N. A class without any image has the lowest number there is.
    """
    lowest = similarities.dtype.min
    is_of_class = tf.equal(tf.range(num_way)[:, tf.newaxis], tf.cast(labels, tf.int32))  # [N, S]
    return tf.reduce_max(tf.where(is_of_class, similarities[:, tf.newaxis], lowest), axis=-1)


class NearestNeighbor(FewShotMethod):
    """Trained on batches of all classes, asked about episodes.

    In training `call` ignores the support set and returns logits of all training classes for
    the queries, [E, B, classes]. Its answers are an order of the classes: the softmax of cosines
    is no probability that was ever trained.

    Batch normalization is that of an ordinary classifier: the running statistics of the training.

    Args:
        network: images -> logits of the training classes; None to compare pixels.
        num_way: N, of the episodes.
        name: fixed, and with it the names of the weights in a checkpoint.
    """

    def __init__(
        self,
        network: keras.Model | None,
        num_way: int,
        name: str = "nearest_neighbor",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.network = network
        self.embedding = embedding_of(network) if network is not None else keras.layers.Flatten()
        self._num_way = num_way
        self.built = True

    def build(self, input_shape: Any = None) -> None:
        """Nothing left to do: the network is built."""

    @property
    def num_outputs(self) -> int:
        """N."""
        return self._num_way

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Classifies the queries into all training classes in training, else by the support."""
        if not training or self.network is None:
            return super().call(inputs, training)
        queries = inputs["query_inputs"]
        flat = tf.reshape(queries, tf.concat([[-1], tf.shape(queries)[2:]], axis=0))
        logits = self.network(tf.ensure_shape(flat, [None, *queries.shape[2:]]), training=True)
        return tf.reshape(logits, tf.concat([tf.shape(queries)[:2], [logits.shape[-1]]], axis=0))

    def adapt(self, support: Support, training: bool = False) -> LabelledFeatures:
        """Remembers the features of the support images."""
        return LabelledFeatures(self._features(support.inputs), tf.identity(support.labels))

    def query_outputs(
        self, adapted: LabelledFeatures, query_inputs: Tensor, training: bool = False
    ) -> Tensor:
        """Returns the cosine with the nearest support image of each class, [B, N]."""
        similarities = cosines(adapted.features, self._features(query_inputs))
        return nearest(similarities, adapted.labels, self._num_way)

    def describe_normalization(self) -> str:
        """Returns the batch-norm mode in words."""
        return "none" if self.network is None else "inductive (running statistics of the training)"

    def _features(self, images: Tensor) -> Tensor:
        features = tf.cast(self.embedding(images, training=False), self.compute_dtype)
        return tf.math.l2_normalize(features, axis=-1)
