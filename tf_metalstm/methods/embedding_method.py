"""The base class of methods that learn features over episodes.

A subclass defines `summarize` and `compare`, see `FeatureMethod`.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Self

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.base import Builder, Method, TrainedOptions, copy_weights
from tf_metalstm.methods.feature_method import FeatureMethod
from tf_metalstm.methods.few_shot import num_classes
from tf_metalstm.methods.metric import in_chunks
from tf_metalstm.options import options_of


class EmbeddingMethod(FeatureMethod, abc.ABC):
    """A method that is trained over episodes and adapts by embedding the support set.

    In meta-training support and queries go through the embedding as one batch, so batch norm
    sees both. After training, batch norm uses the running statistics of the training.

    Args:
        embedding: images -> features.
        training_way: N of the training episodes, if it is the same for all; the compiled training
            step needs it.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    starts_from: ClassVar[tuple[str, ...]] = ("nearest_neighbor",)
    one_pass: ClassVar[bool] = True
    """Whether support and queries are one batch in meta-training."""
    has_unit_features: bool = False
    """Whether features are scaled to length 1."""

    def __init__(
        self, embedding: keras.Model, training_way: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.embedding = embedding
        self.training_way = training_way

    @classmethod
    def from_options(cls, options: Any, builder: Builder) -> Self:
        """Returns the method; its own options are arguments of the same names."""
        embedding = cls.embedding_of(builder.network(1, cls.statistics_momentum))
        own = options_of(type(options)).keys() - options_of(TrainedOptions).keys()
        arguments = {name: getattr(options, name) for name in own}
        return cls(embedding, builder.tasks.training_way, **arguments)

    @staticmethod
    def embedding_of(network: keras.Model) -> keras.Model:
        """Returns the part of a learner's network that is the embedding: all but the last layer."""
        return embedding_of(network)

    def begin(self, pretrained: Method | None) -> None:
        """Copies the weights of a run of this method, or the network of a joint training."""
        if pretrained is not None:
            own = self if isinstance(pretrained, type(self)) else self.embedding
            copy_weights(own.weights, pretrained)

    @property
    def network(self) -> keras.Model:
        """The network that other methods start from: the embedding."""
        return self.embedding

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: no weight depends on the shape of an episode."""

    def one_episode(self, episode: dict[str, Tensor], training: bool) -> Tensor:
        """Answers the queries of one episode; in training in one pass for all its images."""
        if not (training and self.one_pass):
            return super().one_episode(episode, training)
        support, labels = episode["support_inputs"], episode["support_labels"]
        images = tf.concat([support, episode["query_inputs"]], axis=0)
        features = self.features(images, training=True)
        num_support = tf.shape(support)[0]
        num_way = self._num_way(labels, training=True)
        summary = self.summarize_in_training(features[:num_support], labels, num_way)
        return self.compare(summary, features[num_support:], training=True)

    @property
    def features_are_frozen(self) -> bool:
        """Whether nothing of the embedding is trained; then it is never in training mode."""
        return not self.embedding.trainable_weights

    @property
    def keeps_statistics(self) -> bool:
        """Whether the running statistics of the embedding move in training."""
        return super().keeps_statistics and not self.features_are_frozen

    def features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the features of images, in the precision of the method."""
        training = training and not self.features_are_frozen
        # Distances need more bits than the network may calculate with.
        features = tf.cast(self.embedding(images, training=training), self.compute_dtype)
        return tf.math.l2_normalize(features, axis=-1) if self.has_unit_features else features

    def support_features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the features of a support set; outside training in parts."""
        if training:  # batch norm needs all of them at once
            return self.features(images, training)
        return in_chunks(self.features, images, self.embedding.output_shape[1:], self.compute_dtype)

    def _num_way(self, labels: Tensor, training: bool) -> Tensor | int:
        known = self.training_way if training else None
        return num_classes(labels) if known is None else known

    def describe_normalization(self) -> str:
        """Returns the batch-norm mode in words."""
        return "inductive (running statistics of the training)"

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "embedding": keras.saving.serialize_keras_object(self.embedding),
            "training_way": self.training_way,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Returns a method from what `get_config` returned."""
        embedding = keras.saving.deserialize_keras_object(config["embedding"], custom_objects)
        return cls(**{**config, "embedding": embedding})
