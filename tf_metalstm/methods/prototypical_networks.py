"""Prototypical networks: a class is the mean of the features of its support images.

Snell, Swersky & Zemel, "Prototypical Networks for Few-shot Learning", NIPS 2017. A query gets
the class of the nearest mean, by squared Euclidean distance (equations 1 and 2):

    c_k        = mean over support images i of class k of f(x_i)
    p(k | x)   = softmax over k of -|f(x) - c_k|^2

The term -|f|^2 is the same for all classes. So this is a linear layer on f(x) with the weights
2 c_k and the biases -|c_k|^2 (section 2.4).

    paper        code          shape
    f            embedding     [B, h, w, c] -> [B, D]
    c_k          means         [N, D]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.class_means import class_means
from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import TrainedOptions
from tf_metalstm.methods.embedding_method import EmbeddingMethod
from tf_metalstm.options import option
from tf_metalstm.parts import Part

DISTANCES = ("euclidean", "cosine")


@dataclass(frozen=True)
class PrototypicalNetworksOptions(TrainedOptions):
    """Options of prototypical networks."""

    distance: str = option(
        "euclidean",
        "Squared Euclidean distance, as in the paper; with cosine, of features and means that are "
        "scaled to length 1.",
        choices=DISTANCES,
    )
    distance_scale: float = option(1.0, "Factor on the distances.", above=0)


class Prototypes(NamedTuple):
    """What `adapt` returns for a support set.

    means: mean features of each class, [N, D]; zeros for a class without images.
    """

    means: Tensor


def negative_squared_distances(features: Tensor, means: Tensor) -> Tensor:
    """Returns -|f - c_k|^2 of features [B, D] and means [N, D], [B, N]."""
    products = tf.matmul(features, means, transpose_b=True)
    squares = tf.reduce_sum(tf.square(features), axis=-1, keepdims=True)
    return 2.0 * products - squares - tf.reduce_sum(tf.square(means), axis=-1)


@keras.saving.register_keras_serializable("tf_metalstm")
class PrototypicalNetworks(EmbeddingMethod):
    """Classifies a query by the distance of its features to the mean features of each class.

    Args:
        embedding: images -> features.
        training_way: see `EmbeddingMethod`.
        distance: "euclidean" or "cosine".
        distance_scale: factor on the distances; positive.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "prototypical_networks",
        "Prototypical networks",
        "Snell et al., NIPS 2017",
        PrototypicalNetworksOptions,
        needs=("learner",),
    )

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        distance: str = "euclidean",
        distance_scale: float = 1.0,
        name: str = "prototypical_networks",
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, name=name, **kwargs)
        PrototypicalNetworksOptions(None, distance, distance_scale)  # checks them
        self.distance, self.distance_scale = distance, distance_scale
        self.has_unit_features = distance == "cosine"
        self.built = True

    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Prototypes:
        """Returns the mean of each class."""
        return Prototypes(class_means(features, labels, num_way))

    def compare(self, summary: Prototypes, features: Tensor, training: bool = False) -> Tensor:
        """Returns minus the distance to the mean of each class, [B, N]."""
        means = summary.means
        if self.distance == "cosine":
            means = tf.math.l2_normalize(means, axis=-1)
        return self.distance_scale * negative_squared_distances(features, means)

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        own = {"distance": self.distance, "distance_scale": self.distance_scale}
        return {**super().get_config(), **own}
