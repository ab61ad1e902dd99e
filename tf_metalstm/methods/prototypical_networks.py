"""Prototypical networks: a class is the mean of the features of its support images.

Snell, Swersky & Zemel, "Prototypical Networks for Few-shot Learning", NIPS 2017. A query has the
class of the nearest mean, in squared Euclidean distance (equations 1 and 2):

    c_k        = mean over support images i of class k of f(x_i)
    p(k | x)   = softmax over k of -|f(x) - c_k|^2

-|f|^2 is the same for all classes. So it is a linear layer on f(x), with the weights 2 c_k and the
biases -|c_k|^2 (section 2.4).

    paper        code          shape
    f            embedding     [B, h, w, c] -> [B, D]
    c_k          means         [N, D]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.base import Builder, Method, TrainedOptions, copy_weights
from tf_metalstm.methods.few_shot import FewShotMethod, num_classes
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
    """What is remembered of a support set.

    means: of the features of each class, [N, D]; zeros for a class without images.
    """

    means: Tensor


def prototypes(features: Tensor, labels: Tensor, num_way: Tensor | int) -> Tensor:
    """Returns the mean of the features of each class, [N, D]; zeros for one without images.

    Args:
        features: [B, D].
        labels: in [0, N), [B].
        num_way: N.
    """
    of_class = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=features.dtype)  # [B, N]
    sums = tf.matmul(of_class, features, transpose_a=True)
    return tf.math.divide_no_nan(sums, tf.reduce_sum(of_class, axis=0)[:, tf.newaxis])


def negative_squared_distances(features: Tensor, means: Tensor) -> Tensor:
    """Returns -|f - c_k|^2 of features [B, D] and means [N, D], [B, N]."""
    products = tf.matmul(features, means, transpose_b=True)
    squares = tf.reduce_sum(tf.square(features), axis=-1, keepdims=True)
    return 2.0 * products - squares - tf.reduce_sum(tf.square(means), axis=-1)


@keras.saving.register_keras_serializable("tf_metalstm")
class PrototypicalNetworks(FewShotMethod):
    """Trained over episodes; adapting is taking means.

    In meta-training support and queries go through the network as one batch, so that batch norm
    sees both, as in the authors' code; outside of it the running statistics of the training are
    used.

    Args:
        embedding: images -> features.
        training_way: N of the training episodes, where it is the same for all; it has to be known
            to compile the training.
        distance: "euclidean" or "cosine".
        distance_scale: factor on the distances; positive.
        name: fixed, and with it the names of the weights in a checkpoint.
    """

    part = Part(
        "prototypical_networks",
        "Prototypical networks",
        "Snell et al., NIPS 2017",
        PrototypicalNetworksOptions,
        needs=("learner",),
    )
    starts_from: ClassVar[tuple[str, ...]] = ("nearest_neighbor",)

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        distance: str = "euclidean",
        distance_scale: float = 1.0,
        name: str = "prototypical_networks",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        PrototypicalNetworksOptions(None, distance, distance_scale)  # checks them
        self.embedding = embedding
        self.training_way = training_way
        self.distance, self.distance_scale = distance, distance_scale
        self.built = True

    @classmethod
    def from_options(
        cls, options: PrototypicalNetworksOptions, builder: Builder
    ) -> PrototypicalNetworks:
        return cls(
            embedding_of(builder.network(1, cls.statistics_momentum)),
            builder.tasks.training_way,
            options.distance,
            options.distance_scale,
        )

    def begin(self, pretrained: Method | None) -> None:
        """Takes over another run of its kind, or the network of a joint training."""
        if pretrained is not None:
            copy_weights(self.weights, pretrained)

    def build(self, input_shape: Any = None) -> None:
        """Nothing left to do: no weight depends on the shape of an episode."""

    def one_episode(self, episode: dict[str, Tensor], training: bool) -> Tensor:
        """Answers the queries of one episode; in training with one pass for all its images."""
        if not training:
            return super().one_episode(episode, training)
        support, labels = episode["support_inputs"], episode["support_labels"]
        images = tf.concat([support, episode["query_inputs"]], axis=0)
        features = self._features(images, training=True)
        num_support = tf.shape(support)[0]
        num_way = num_classes(labels) if self.training_way is None else self.training_way
        means = prototypes(features[:num_support], labels, num_way)
        return self._outputs(means, features[num_support:])

    def adapt(self, support: Support, training: bool = False) -> Prototypes:
        """Returns the mean of each class."""
        features = self._features(support.inputs, training)
        return Prototypes(prototypes(features, support.labels, num_classes(support.labels)))

    def query_outputs(
        self, adapted: Prototypes, query_inputs: Tensor, training: bool = False
    ) -> Tensor:
        """Returns minus the distance to the mean of each class, [B, N]."""
        return self._outputs(adapted.means, self._features(query_inputs, training))

    def _outputs(self, means: Tensor, features: Tensor) -> Tensor:
        if self.distance == "cosine":
            means = tf.math.l2_normalize(means, axis=-1)
        return self.distance_scale * negative_squared_distances(features, means)

    def _features(self, images: Tensor, training: bool) -> Tensor:
        # The network may calculate in fewer bits than distances need.
        features = tf.cast(self.embedding(images, training=training), self.compute_dtype)
        return tf.math.l2_normalize(features, axis=-1) if self.distance == "cosine" else features

    def describe_normalization(self) -> str:
        """Returns the batch-norm mode in words."""
        return "inductive (running statistics of the training)"

    def get_config(self) -> dict[str, Any]:
        """Returns what makes an equal method with fresh weights."""
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "embedding": keras.saving.serialize_keras_object(self.embedding),
            "training_way": self.training_way,
            "distance": self.distance,
            "distance_scale": self.distance_scale,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> PrototypicalNetworks:
        """Returns a method from what `get_config` returned."""
        embedding = keras.saving.deserialize_keras_object(config["embedding"], custom_objects)
        return cls(**{**config, "embedding": embedding})
