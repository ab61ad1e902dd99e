"""Tests the cosine classifier against NumPy, and which weights it takes from a network."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.cosine_classifier import (
    CosineClassifier,
    scaled_cosines,
    with_cosine_classifier,
)
from tf_metalstm.learners.embedding import embedding_of

SHAPE = (16, 16, 1)


def test_logits_are_scaled_cosines():
    generator = np.random.default_rng(0)
    features, kernel = generator.normal(size=(4, 6)), generator.normal(size=(6, 3))
    expected = [
        [7.0 * f @ w / (np.linalg.norm(f) * np.linalg.norm(w)) for w in kernel.T] for f in features
    ]
    found = scaled_cosines(tf.constant(features), tf.constant(kernel), tf.constant(7.0, tf.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    lengths = generator.uniform(0.1, 9.0, [4, 1]), generator.uniform(0.1, 9.0, [1, 3])
    longer = scaled_cosines(features * lengths[0], kernel * lengths[1], 7.0)
    np.testing.assert_allclose(longer, expected, rtol=1e-10)


def test_by_hand():
    """(3, 4) has the cosine 0.6 with the first axis and -0.8 with the negative second axis."""
    layer = CosineClassifier(2, initial_scale=5.0)
    layer.build((None, 2))
    layer.kernel.assign([[2.0, 0.0], [0.0, -9.0]])
    np.testing.assert_allclose(layer(tf.constant([[3.0, 4.0]])), [[3.0, -4.0]], rtol=1e-6)


def test_the_scale_is_learned_and_features_of_zeros_are_no_accident():
    layer = CosineClassifier(3)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.constant([[0.0, 0.0], [1.0, 2.0]])))
    gradients = tape.gradient(loss, layer.trainable_weights)
    assert {w.path.split("/")[-1] for w in layer.trainable_weights} == {"kernel", "scale"}
    assert all(np.isfinite(g).all() for g in gradients)
    assert layer.scale.numpy() == 10.0


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_network_before_it_is_shared_and_its_weights_keep_their_names(dtype):
    linear = conv4(SHAPE, 7, 4, dtype=dtype)
    network = with_cosine_classifier(linear, 5, 10.0)
    logits = network(np.random.default_rng(0).random((2, *SHAPE), np.float32))
    assert (logits.shape, logits.dtype) == ((2, 5), tf.float32)
    assert np.abs(logits).max() <= 10.0
    kept = {w.path: w for w in linear.weights if not w.path.startswith("linear")}
    found = {w.path: w for w in network.weights if not w.path.startswith("cosine")}
    assert found.keys() == kept.keys()
    assert all(found[path] is kept[path] for path in kept)
    assert [w.path for w in embedding_of(network).weights] == list(kept)


def test_a_copy_is_made_from_its_config():
    layer = CosineClassifier(3, initial_scale=4.0, name="cosine")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config()


def test_a_block_without_relu_lets_negative_features_through():
    """A ReLU commutes with max-pooling, so with a ReLU the same features are cut off at 0."""
    images = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    with_relu, without = conv4(SHAPE, 5, 4), conv4(SHAPE, 5, 4, last_relu=False)
    without.set_weights(with_relu.get_weights())
    cut, free = (embedding_of(network)(images).numpy() for network in (with_relu, without))
    assert free.min() < 0
    np.testing.assert_allclose(cut, np.maximum(free, 0.0), rtol=1e-5)
