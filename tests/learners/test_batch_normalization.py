"""Tests batch norm: its moments, its running statistics, and the gradient of its gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.learners.batch_normalization import BatchNormalization

KINDS = [((5, 4, 4, 3), "float32"), ((5, 4, 4, 3), "float64"), ((20, 3), "float32")]


def normalized(shape, dtype, **options):
    layer = BatchNormalization(epsilon=1e-3, dtype=dtype, **options)
    layer.build((None, *shape[1:]))
    x = np.random.default_rng(0).normal(2.0, 3.0, shape)
    return layer, tf.constant(x, dtype), x.reshape(-1, shape[-1])


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_statistics_prefer_the_latest_batch(shape, dtype):
    """running <- momentum * running + (1 - momentum) * batch, with momentum 0.05."""
    layer, x, rows = normalized(shape, dtype, momentum=0.05)
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.95 * rows.mean(0), rtol=1e-5)
    variance = 0.05 + 0.95 * rows.var(0, ddof=1)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_the_layer_normalizes(shape, dtype, training):
    layer, x, rows = normalized(shape, dtype)
    gamma, beta, mean, variance = np.random.default_rng(1).uniform(0.5, 2.0, (4, 3))
    layer.set_weights([gamma, beta, mean, variance])
    if training:
        mean, variance = rows.mean(0), rows.var(0)
    expected = (rows - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    found = layer(x, training=training).numpy().reshape(-1, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_without_gamma_is_keras_own():
    x = tf.constant(np.random.default_rng(0).normal(2.0, 3.0, (6, 16, 16, 2)), "float32")
    fused, own = (
        kind(scale=False, epsilon=1e-3, momentum=0.05)
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    )
    for training in (True, False):
        answers = [layer(x, training=training) for layer in (fused, own)]
        np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(7, 3), (5, 2, 2, 3)])
def test_the_gradient_of_the_gradient_agrees_with_finite_differences(shape):
    """Checks our layer in float64. Keras's layer fails this test."""
    layer = BatchNormalization(epsilon=1e-3, dtype="float64")
    layer.build((None, *shape[1:]))
    weights = tf.constant(np.random.default_rng(1).normal(size=shape))

    def size_of_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(weights * tf.tanh(layer(x, training=True)))
        return tf.reduce_sum(tf.square(tape.gradient(loss, x)))

    x = tf.constant(np.random.default_rng(2).normal(size=shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = size_of_gradient(x)
    found = tape.gradient(value, x).numpy()
    for index in list(np.ndindex(*shape))[::4]:
        step = np.zeros(shape)
        step[index] = 1e-5
        expected = (size_of_gradient(x + step) - size_of_gradient(x - step)) / 2e-5
        np.testing.assert_allclose(found[index], expected, rtol=1e-5, atol=1e-7)


def keras_and_ours(**options):
    layers = [
        kind(momentum=0.05, **options)
        for kind in (keras.layers.BatchNormalization, BatchNormalization)
    ]
    x = np.random.default_rng(0).normal(2.0, 3.0, (5, 4, 6, 3)).astype("float32")
    generator = np.random.default_rng(1)
    for layer in layers:
        layer.build(x.shape)
    weights = [generator.uniform(0.5, 2.0, w.shape) for w in layers[0].get_weights()]
    for layer in layers:
        layer.set_weights(weights)
    return layers, x


@pytest.mark.parametrize(
    "options", [{"axis": 1}, {"axis": 2}, {"axis": 3}, {"epsilon": 1e-7}, {"trainable": False}]
)
def test_its_settings_mean_what_they_mean_in_keras(options):
    layers, x = keras_and_ours(**options)
    for training in (True, False):
        answers = [layer(x, training=training) for layer in layers]
        np.testing.assert_allclose(*answers, rtol=0.03, atol=0.03)  # variances by n - 1, by n
        if training:
            np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-4)
    means = [layer.moving_mean.numpy() for layer in layers]
    np.testing.assert_allclose(*means, rtol=1e-4)


def test_a_smaller_epsilon_than_the_fused_kernel_knows_is_taken_at_its_word():
    layer = BatchNormalization(epsilon=1e-8)
    x = np.random.default_rng(0).normal(0.0, 1e-4, (50, 2, 2, 1)).astype("float32")
    assert np.std(layer(x, training=True)) == pytest.approx(0.71, abs=0.02)  # sqrt(1 / 2)


@pytest.mark.parametrize("axis", [-1, 1])
def test_what_is_masked_has_no_part_in_the_moments(axis):
    layers, x = keras_and_ours(axis=axis)
    mask = np.random.default_rng(2).random(x.shape[:-1]) < 0.6
    answers = [layer(x, training=True, mask=tf.constant(mask)) for layer in layers]
    np.testing.assert_allclose(*answers, rtol=1e-4, atol=1e-4)
    assert np.abs(answers[1] - layers[1](x, training=True)).max() > 0.01


def test_moments_of_a_layer_of_few_bits_are_those_of_float32():
    layer = BatchNormalization(dtype="bfloat16")
    x = tf.cast(np.random.default_rng(0).normal(100.0, 1.0, (400, 2)), "bfloat16")
    outputs = layer(x, training=True)
    assert outputs.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.math.reduce_std(tf.cast(outputs, "float32"), 0), 1.0, rtol=0.02)
