"""Siamese networks: two images belong to one class if their features differ little.

Koch, Zemel & Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition", ICML Deep
Learning Workshop 2015, section 3. The weights a_j of the distance are learned and may be negative:

    z(x, s)       = b + sum over j of a_j |f_j(x) - f_j(s)|
    P(same class) = 1 / (1 + exp(-z))

A query gets the class whose support images have the highest mean z. The pairs of a training episode
are each query with each class. Only one of N pairs is of the same class, so the loss weights the
two kinds equally:

    loss = 1/2 (mean over same of -log P + mean over different of -log(1 - P))

    paper        code          shape
    f            embedding     [B, h, w, c] -> [B, D]
    a, b         weights, bias [D], []
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import TrainedOptions
from tf_metalstm.methods.embedding_method import EmbeddingMethod
from tf_metalstm.methods.metric import LabelledFeatures
from tf_metalstm.parts import Part


def mean_scores(scores: Tensor, labels: Tensor, num_way: Tensor | int) -> Tensor:
    """Returns the mean score of each class, [B, N]; 0 for a class without images.

    Args:
        scores: scores of B queries with S support images, [B, S].
        labels: labels of the support images, in [0, N), [S].
        num_way: N.
    """
    of_class = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=scores.dtype)  # [S, N]
    return tf.math.divide_no_nan(tf.matmul(scores, of_class), tf.reduce_sum(of_class, axis=0))


def balanced_cross_entropy(labels: Tensor, scores: Tensor) -> Tensor:
    """Returns the binary cross-entropy of labels [..., B] and scores [..., B, N], a scalar.

    The pair of the same class has the same weight as the N - 1 other pairs together.
    """
    scores = tf.convert_to_tensor(scores)
    num_way = tf.shape(scores)[-1]
    same = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=scores.dtype)
    share = same + (1.0 - same) / tf.cast(num_way - 1, scores.dtype)
    losses = tf.nn.softplus((1.0 - 2.0 * same) * scores)
    return 0.5 * tf.reduce_mean(tf.reduce_sum(share * losses, axis=-1))


@keras.saving.register_keras_serializable("tf_metalstm")
class SiameseNetworks(EmbeddingMethod):
    """Adapts by embedding the support set; trained on pairs of images.

    Args:
        embedding: images -> features.
        training_way: see `EmbeddingMethod`.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "siamese_networks",
        "Siamese networks",
        "Koch et al., ICML Deep Learning Workshop 2015",
        TrainedOptions,
        needs=("learner",),
    )

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        name: str = "siamese_networks",
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, name=name, **kwargs)
        size = embedding.output_shape[-1]
        # Negative, so that images which differ less start with a higher score.
        begin = keras.initializers.Constant(-1.0 / size)
        self.distance = self.add_weight(shape=(size,), initializer=begin, name="distance")
        self.bias = self.add_weight(shape=(), initializer="zeros", name="bias")
        self.built = True

    def training_loss(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns the binary cross-entropy of the pairs."""
        return balanced_cross_entropy(labels, outputs)

    def summarize(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int
    ) -> LabelledFeatures:
        """Returns the features of the support images."""
        return LabelledFeatures(features, tf.identity(labels))

    def compare(
        self, summary: LabelledFeatures, features: Tensor, training: bool = False
    ) -> Tensor:
        """Returns the mean score with the support images of each class, [B, N]."""
        weights, bias = tf.convert_to_tensor(self.distance), tf.convert_to_tensor(self.bias)

        def scores_of(queries: Tensor) -> Tensor:  # [..., D] -> [..., S]
            differences = tf.abs(queries[..., tf.newaxis, :] - summary.features)
            return tf.linalg.matvec(differences, weights) + bias

        # Outside training query by query: all pairs at once may need much memory.
        scores = scores_of(features) if training else tf.map_fn(scores_of, features)
        return mean_scores(scores, summary.labels, self._num_way(summary.labels, training))
