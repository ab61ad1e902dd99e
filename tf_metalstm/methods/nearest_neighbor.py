"""The nearest neighbour baseline of Ravi & Larochelle, ICLR 2017, section 5.1 and table 1.

One network is trained on all training classes together. Its last layer is linear, or uses cosines
(Baseline++, Chen et al., ICLR 2019: `learners/cosine_classifier.py`). It is not used after
training. In an episode a query with the features z gets the class of the support image whose
features x are most similar:

    cos(x, z) = x . z / (|x| |z|)
    logit of class n = max over support images i of class n of cos(x_i, z)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_metalstm.data.episodes import Episodes
from tf_metalstm.episode import Tensor
from tf_metalstm.learners.cosine_classifier import with_cosine_classifier
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.base import Builder, TrainedOptions
from tf_metalstm.methods.feature_method import FeatureMethod
from tf_metalstm.methods.few_shot import num_classes
from tf_metalstm.methods.metric import LabelledFeatures, cosines, in_chunks, nearest
from tf_metalstm.options import OptionError, option
from tf_metalstm.parts import Part

CLASSIFIERS = ("linear", "cosine")


@dataclass(frozen=True)
class NearestNeighborOptions(TrainedOptions):
    """Options of joint training."""

    num_training_classes: int | None = option(
        None,
        "Number of classes of the training split; default: all.",
        at_least=2,
        alike=True,
        settled=True,
    )
    joint_batch_size: int = option(
        64, "Batch size of the training.", at_least=1, training_only=True
    )
    classifier: str = option(
        "linear",
        "The last layer in training: linear, or scaled cosines (Baseline++).",
        choices=CLASSIFIERS,
        settled=True,
        alike=True,
    )
    classifier_scale: float = option(
        10.0,
        "Initial value of the learned factor on the cosines.",
        above=0,
        training_only=True,
        only_with={"classifier": "cosine"},
    )


@keras.saving.register_keras_serializable("tf_metalstm")
class NearestNeighbor(FeatureMethod):
    """Classifies a query as the support image with the most similar features.

    Its network is trained on batches of all training classes together.

    In training `call` ignores the support set and returns logits of all training classes for
    the queries, [E, B, classes]. Its answers only rank the classes: no training has made the
    softmax of its cosines a probability.

    Batch normalization is that of an ordinary classifier, with running statistics.

    Args:
        network: images -> logits of the training classes.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "nearest_neighbor",
        "Nearest neighbour of a jointly trained network",
        "Ravi & Larochelle, ICLR 2017",
        NearestNeighborOptions,
        needs=("learner",),
    )
    is_episodic: ClassVar[bool] = False

    def __init__(self, network: keras.Model, name: str = "nearest_neighbor", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.network = network
        self.embedding = embedding_of(network)
        self.built = True

    @classmethod
    def from_options(cls, options: NearestNeighborOptions, builder: Builder) -> NearestNeighbor:
        num_classes = _num_training_classes(options, builder.tasks)
        network = builder.network(num_classes, cls.statistics_momentum)
        if options.classifier == "cosine":
            network = with_cosine_classifier(network, num_classes, options.classifier_scale)
        return cls(network)

    @classmethod
    def settled(cls, options: NearestNeighborOptions, tasks: Any) -> dict[str, Any]:
        """Returns the number of classes of the training."""
        num_classes = _num_training_classes(options, tasks)
        return {**super().settled(options, tasks), "num_training_classes": num_classes}

    @classmethod
    def training_stream(cls, options: NearestNeighborOptions, tasks: Any, seed: int) -> Episodes:
        """Returns batches of all training classes together."""
        num_classes, num_in_data = options.num_training_classes, tasks.num_training_classes
        if num_classes is not None and num_classes != num_in_data:
            raise OptionError(
                "num_training_classes",
                f"is {num_classes}, but {tasks.name}/train has {num_in_data} classes: give that "
                "number, or leave the option out.",
            )
        return tasks.joint_batches(options.joint_batch_size, seed)

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: the network is built."""

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Returns logits of all training classes in training, else of the support classes."""
        if not training:
            return super().call(inputs, training)
        queries = inputs["query_inputs"]
        flat = tf.reshape(queries, tf.concat([[-1], tf.shape(queries)[2:]], axis=0))
        logits = self.network(tf.ensure_shape(flat, [None, *queries.shape[2:]]), training=True)
        return tf.reshape(logits, tf.concat([tf.shape(queries)[:2], [logits.shape[-1]]], axis=0))

    def features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the features of images, of length 1."""
        features = tf.cast(self.embedding(images, training=False), self.compute_dtype)
        return tf.math.l2_normalize(features, axis=-1)

    def support_features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the features of a support set, computed in parts."""
        return in_chunks(self.features, images, self.embedding.output_shape[1:], self.compute_dtype)

    def summarize(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int
    ) -> LabelledFeatures:
        """Returns the features of the support images."""
        return LabelledFeatures(features, tf.identity(labels))

    def compare(
        self, summary: LabelledFeatures, features: Tensor, training: bool = False
    ) -> Tensor:
        """Returns the cosine with the nearest support image of each class, [B, N]."""
        similarities = cosines(summary.features, features)
        return nearest(similarities, summary.labels, num_classes(summary.labels))

    @property
    def served_variables(self) -> list[keras.Variable]:
        """The variables of the embedding, without the last layer."""
        return self.embedding.variables

    def describe_normalization(self) -> str:
        """Returns the batch-norm mode in words."""
        return "inductive (running statistics of the training)"

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        network = keras.saving.serialize_keras_object(self.network)
        return {"name": self.name, "dtype": self.dtype_policy.name, "network": network}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> NearestNeighbor:
        """Returns a method from what `get_config` returned."""
        network = keras.saving.deserialize_keras_object(config["network"], custom_objects)
        return cls(**{**config, "network": network})


def _num_training_classes(options: NearestNeighborOptions, tasks: Any) -> int:
    number = options.num_training_classes or tasks.num_training_classes
    if not number:
        raise OptionError(
            "method",
            f"is nearest_neighbor, which is trained on all training classes together, but "
            f"source={tasks.name} makes new classes for every episode: choose another method.",
        )
    return number
