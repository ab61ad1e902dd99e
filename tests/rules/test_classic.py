"""Tests momentum, RMSprop and Adam against Keras's own optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.rules.classic import Adam, Momentum, RMSprop

PAIRS = {
    "momentum": (Momentum, lambda: keras.optimizers.SGD(0.03, momentum=0.9)),
    "rmsprop": (RMSprop, lambda: keras.optimizers.RMSprop(0.03, rho=0.9, epsilon=1e-7)),
    "adam": (Adam, lambda: keras.optimizers.Adam(0.03, epsilon=1e-7)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_moves_as_that_of_keras(name):
    rule_class, optimizer = PAIRS[name][0], PAIRS[name][1]()
    rule = rule_class(0.03)
    rule.build()
    generator = np.random.default_rng(0)
    start = generator.normal(size=4).astype(np.float32)
    variable, theta = keras.Variable(start), tf.constant(start)
    state = rule.initial_state(theta)
    for _ in range(5):
        gradient = tf.constant(generator.normal(size=4), tf.float32)
        optimizer.apply([gradient], [variable])
        theta, state = rule(gradient, tf.zeros([]), theta, state)
        np.testing.assert_allclose(theta, variable.numpy(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_its_rate_is_learned_through_gradients_of_zero(name):
    rule = PAIRS[name][0](0.1, learned=True, dtype="float64")
    rule.build()
    [weight] = rule.trainable_weights
    assert weight.path == f"{name}/rate"
    theta = tf.zeros([2], tf.float64)
    state = rule.initial_state(theta)
    gradient = tf.constant([0.0, 0.5], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(gradient)
        moved, _ = rule(gradient, tf.zeros([], tf.float64), theta, state)
    rate, through = tape.gradient(moved, [weight.value, gradient])
    # One update is -alpha * d, so its derivative with respect to alpha is -d.
    np.testing.assert_allclose(rate, np.sum(moved) / 0.1, rtol=1e-6)
    assert np.all(np.isfinite(through))
