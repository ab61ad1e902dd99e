"""Relation networks: a network compares the map of a class with that of a query.

Sung et al., "Learning to Compare: Relation Network for Few-Shot Learning", CVPR 2018, sections 3.2
and 3.4. f returns maps, not vectors. The maps of the K support images of a class are summed:

    r(x, k) = sigmoid(g([sum over support images i of class k of f(x_i), f(x)]))
    loss    = mean over queries and classes of (r - 1[x is of class k])^2

    paper        code          shape
    f            embedding     [B, h, w, c] -> [B, h', w', C]
    g            relation      [B, h', w', 2 C] -> [B, 1]; two blocks of [3x3 convolution, batch
                               norm, ReLU, 2x2 max-pool], a layer of 8, a layer of 1

The authors' code normalizes every batch by its own moments, also in tests. Then the answer to a
query depends on the other queries. One of its scripts selects the model on the test classes. Here
the running statistics of the training are used after training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.learners.batch_normalization import BatchNormalization
from tf_metalstm.learners.embedding import maps_of
from tf_metalstm.methods.base import TrainedOptions
from tf_metalstm.methods.embedding_method import EmbeddingMethod
from tf_metalstm.options import option
from tf_metalstm.parts import Part


@dataclass(frozen=True)
class RelationNetworksOptions(TrainedOptions):
    """Options of relation networks."""

    relation_units: int = option(
        8, "Units of the dense layer of the relation module.", at_least=1, alike=True, settled=True
    )


class ClassMaps(NamedTuple):
    """What `adapt` returns for a support set.

    maps: sum of the maps of each class, [N, h', w', C]; zeros for a class without images.
    """

    maps: Tensor


def class_maps(maps: Tensor, labels: Tensor, num_way: Tensor | int) -> Tensor:
    """Returns the sum of the maps of each class, [B, h', w', C] -> [N, h', w', C].

    Args:
        maps: maps of the support images.
        labels: their labels, in [0, N), [B].
        num_way: N.
    """
    of_class = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=maps.dtype)  # [B, N]
    return tf.tensordot(of_class, maps, [[0], [0]])


def relation_module(
    map_shape: tuple[int, ...], filters: int, units: int, dtype: Any = "float32"
) -> keras.Model:
    """Returns g without its sigmoid, pairs of maps [B, h', w', 2 C] -> [B, 1].

    Args:
        map_shape: (h', w', C).
        filters: number of filters of both convolutions.
        units: units of the dense layer before the last.
        dtype: dtype policy of Keras; the last layer has the precision of its weights.
    """
    height, width, channels = map_shape
    full = keras.dtype_policies.get(dtype).variable_dtype
    pairs = x = keras.Input((height, width, 2 * channels), dtype=full)
    for i in (1, 2):
        x = keras.layers.Conv2D(filters, 3, padding="same", dtype=dtype, name=f"relation_conv_{i}")(
            x
        )
        x = BatchNormalization(momentum=0.99, dtype=dtype, name=f"relation_norm_{i}")(x)
        # Max-pool before the ReLU, as in conv4: the same results, with fewer values for the ReLU.
        x = keras.layers.MaxPooling2D(padding="same", dtype=dtype, name=f"relation_pool_{i}")(x)
        x = keras.layers.ReLU(dtype=dtype, name=f"relation_relu_{i}")(x)
    x = keras.layers.Flatten(dtype=dtype, name="relation_flatten")(x)
    x = keras.layers.Dense(units, "relu", dtype=dtype, name="relation_dense")(x)
    return keras.Model(
        pairs, keras.layers.Dense(1, dtype=full, name="relation_score")(x), name="relation"
    )


@keras.saving.register_keras_serializable("tf_metalstm")
class RelationNetworks(EmbeddingMethod):
    """Adapts by summing the maps of each class; a network compares them with queries.

    Args:
        embedding: images -> maps.
        training_way: see `EmbeddingMethod`.
        relation_units: units of the dense layer of the relation module.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "relation_networks",
        "Relation networks",
        "Sung et al., CVPR 2018",
        RelationNetworksOptions,
        needs=("learner",),
    )
    # Without halvings the maps are larger, but the kernels of the convolutions stay the same.
    differs_from_start: ClassVar[tuple[str, ...]] = ("halvings",)

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        relation_units: int = 8,
        name: str = "relation_networks",
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, name=name, **kwargs)
        RelationNetworksOptions(None, relation_units)  # checks it
        self.relation_units = relation_units
        shape = embedding.output_shape[1:]
        policy = embedding.layers[-1].dtype_policy
        self.relation = relation_module(shape, shape[-1], relation_units, policy)
        self.built = True

    @staticmethod
    def embedding_of(network: keras.Model) -> keras.Model:
        """Returns the network up to its maps."""
        return maps_of(network)

    def training_loss(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns the mean squared error of the relations."""
        relations = tf.sigmoid(outputs)
        same = tf.one_hot(tf.cast(labels, tf.int32), tf.shape(relations)[-1], dtype=relations.dtype)
        return tf.reduce_mean(tf.math.squared_difference(relations, same))

    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> ClassMaps:
        """Returns the sum of the maps of each class."""
        return ClassMaps(class_maps(features, labels, num_way))

    def compare(self, summary: ClassMaps, features: Tensor, training: bool = False) -> Tensor:
        """Returns the relation to each class before the sigmoid, [B, N]."""
        num_way, number = tf.shape(summary.maps)[0], tf.shape(features)[0]
        if not training:  # query by query: all pairs at once would need much memory
            return tf.map_fn(lambda one: self._scores(summary.maps, one[tf.newaxis])[0], features)
        scores = self._scores(summary.maps, features, training=True)
        return tf.ensure_shape(tf.reshape(scores, [number, num_way]), [None, self.training_way])

    def _scores(self, maps: Tensor, features: Tensor, training: bool = False) -> Tensor:
        """Returns g for each query [B, h', w', C] and class [N, h', w', C], [B, N]."""
        num_way, number = tf.shape(maps)[0], tf.shape(features)[0]
        pairs = tf.concat(
            [tf.tile(maps, [number, 1, 1, 1]), tf.repeat(features, num_way, axis=0)], axis=-1
        )
        scores = tf.cast(self.relation(pairs, training=training), self.compute_dtype)
        return tf.reshape(scores, [number, num_way])

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        return {**super().get_config(), "relation_units": self.relation_units}
