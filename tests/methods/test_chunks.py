"""A support set of unknown size goes through the network in parts, with the same result."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.episode import Support
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.embedding import maps_of
from tf_metalstm.methods import metric
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.methods.metric import in_chunks
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.methods.prototypical_networks import PrototypicalNetworks
from tf_metalstm.methods.relation_networks import RelationNetworks
from tf_metalstm.methods.ridge_regression import RidgeRegression
from tf_metalstm.methods.siamese_networks import SiameseNetworks

SHAPE = (4, 4, 1)
CHUNK = 4


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(metric, "_CHUNK", CHUNK)


def unknown_size(function):
    """Returns the same function in a graph that does not know the number of images."""
    spec = tf.TensorSpec([None, *SHAPE], tf.float32)
    return tf.function(function, input_signature=[spec])


def images(number):
    return np.random.default_rng(number).normal(size=(number, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("number", [1, 3, 4, 5, 8, 9])
def test_never_more_than_a_chunk_at_a_time(number):
    sizes = []

    def look(rows):
        sizes.append(len(rows))
        return rows.reshape(len(rows), -1) * 2

    def features(rows):
        return tf.ensure_shape(tf.numpy_function(look, [rows], tf.float32), [None, 16])

    whole = images(number)
    found = unknown_size(lambda rows: in_chunks(features, rows, (16,), "float32"))(whole)
    np.testing.assert_array_equal(found, whole.reshape(number, -1) * 2)
    assert sizes == [CHUNK] * (number // CHUNK) + [number % CHUNK] * (number % CHUNK > 0)
    sizes.clear()
    # If the number is known, all images go through at once.
    in_chunks(features, tf.constant(whole), (16,), "float32")
    assert sizes == [number]


def test_the_shape_of_features_is_known():
    graph = unknown_size(lambda rows: in_chunks(lambda x: x[:, 0, :, 0], rows, (4,), "float32"))
    assert graph.get_concrete_function().structured_outputs.shape.as_list() == [None, 4]


def network(num_outputs=None):
    layers = [keras.layers.Flatten(), keras.layers.Dense(6, activation="tanh")]
    layers += [keras.layers.BatchNormalization()]
    layers += [] if num_outputs is None else [keras.layers.Dense(num_outputs)]
    inputs = keras.Input(SHAPE)
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


METHODS = {
    "prototypical_networks": lambda: PrototypicalNetworks(network()),
    "cosine": lambda: PrototypicalNetworks(network(), distance="cosine"),
    "matching_networks": lambda: MatchingNetworks(network()),
    "full_context": lambda: MatchingNetworks(network(), full_context=True),
    "nearest_neighbor": lambda: NearestNeighbor(network(3)),
    "siamese_networks": lambda: SiameseNetworks(network()),
    "ridge_regression": lambda: RidgeRegression(network()),
    "relation_networks": lambda: RelationNetworks(maps_of(conv4(SHAPE, 3, 2, halvings=0))),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_compare_features_answer_alike(name):
    method, support, labels = METHODS[name](), images(9), tf.range(9) % 3

    def answers(rows, training=False):
        adapted = method.adapt(Support(rows, labels), training)
        return method.query_outputs(adapted, tf.constant(images(5)))

    whole = answers(tf.constant(support))
    np.testing.assert_allclose(unknown_size(answers)(support), whole, atol=1e-5)
    if name != "nearest_neighbor":  # in training, batch norm must see all images
        in_training = unknown_size(lambda rows: method.adapt(Support(rows, labels), True)[0])
        expected = method.adapt(Support(tf.constant(support), labels), True)[0]
        np.testing.assert_allclose(in_training(support), expected, atol=1e-5)
