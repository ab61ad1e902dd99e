"""Tests batch norm blended with the moments of each image against NumPy, image by image."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.learners.blended_normalization import BlendedNormalization
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.rules.sgd import SGD


def layer_and_images():
    layer = BlendedNormalization(momentum=0.75, dtype="float64")
    layer.build((None, 4, 4, 3))
    gamma, beta, mean, variance = np.random.default_rng(1).uniform(0.5, 2.0, (4, 3))
    for weight, value in zip(
        (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance, layer.blend),
        (gamma, beta, mean, variance, 0.7),
        strict=True,
    ):
        weight.assign(value)
    return layer, np.random.default_rng(0).normal(2.0, 3.0, (5, 4, 4, 3))


@pytest.mark.parametrize("training", [True, False])
def test_moments_are_those_of_a_mixture_of_batch_and_image(training):
    layer, images = layer_and_images()
    gamma, beta, mean, variance = (
        np.array(w) for w in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    if training:
        mean, variance = images.mean((0, 1, 2)), images.var((0, 1, 2))
    a = 1.0 / (1.0 + np.exp(-0.7))
    found = layer(tf.constant(images), training=training).numpy()
    for image, outputs in zip(images, found, strict=True):
        for c in range(3):
            own = image[..., c]
            center = a * mean[c] + (1 - a) * own.mean()
            # The variance of a mixture is the mean square minus the square of the mean.
            square = a * (variance[c] + mean[c] ** 2) + (1 - a) * np.mean(own**2)
            deviation = np.sqrt(square - center**2 + layer.epsilon)
            expected = gamma[c] * (own - center) / deviation + beta[c]
            np.testing.assert_allclose(outputs[..., c], expected, rtol=1e-9)


def test_running_statistics_are_those_of_the_batch_alone():
    layer, images = layer_and_images()
    before = np.array(layer.moving_mean)
    layer(tf.constant(images), training=True)
    expected = 0.75 * before + 0.25 * images.mean((0, 1, 2))
    np.testing.assert_allclose(layer.moving_mean, expected, rtol=1e-9)


def test_only_images_have_moments_of_their_own():
    with pytest.raises(
        ValueError, match=r"takes images \[B, h, w, c\], got \(None, 3\): use Batch"
    ):
        BlendedNormalization().build((None, 3))


def test_survives_serialization():
    layer, images = layer_and_images()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(images), layer(images))


def test_a_network_of_it_is_adapted_and_its_training_queries_stand_alone():
    network = conv4((4, 4, 1), 2, 2, halvings=2, blend_norm=True)
    learner = FunctionalLearner(network)
    assert sum(block.name.endswith("/blend") for block in learner.parameter_blocks) == 4
    method = GradientBasedMethod(
        learner, SGD(0.1), InnerLoop(1), "support", training_queries="as_after"
    )
    images = toy.noise(6, 4, 4, 1)
    inputs = {
        "support_inputs": images[tf.newaxis, :4],
        "support_labels": tf.constant([[0, 1, 0, 1]]),
        "query_inputs": images[tf.newaxis],
    }
    answers = method(inputs, training=True)
    alone = method({**inputs, "query_inputs": images[tf.newaxis, :1]}, training=True)
    np.testing.assert_allclose(alone, answers[:, :1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answers, method(inputs), rtol=1e-4, atol=1e-5)
    assert method.transductive_mode is None


def test_with_bfloat16_it_computes_moments_in_float32():
    images = toy.noise(5, 16, 16, 1)
    coarse, fine = (
        conv4((16, 16, 1), 2, 4, blend_norm=True, dtype=dtype)
        for dtype in ("mixed_bfloat16", "float32")
    )
    coarse.set_weights(fine.get_weights())
    for training in (True, False):
        one, other = (network(images, training=training) for network in (coarse, fine))
        np.testing.assert_allclose(one, other, atol=0.05)
