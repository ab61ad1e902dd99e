"""Tests the rules of MAML and Meta-SGD against arithmetic by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop, unroll
from tf_metalstm.options import OptionError
from tf_metalstm.parameters import blocks_of
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.rules.meta_sgd import MetaSGD
from tf_metalstm.rules.sgd import SGD


class Parabola:
    """A problem with one parameter and the loss theta^2 / 2."""

    def initial_carry(self):
        return ()

    def loss(self, theta, carry, step):
        del step
        return tf.reduce_sum(tf.square(theta)) / 2.0, carry

    def gradient_scale(self):
        return 1.0


def blocks(size):
    return blocks_of([("theta", (size,))])


def adapted_loss(rule, theta_0, num_steps, second_order):
    options = InnerLoop(num_steps, second_order=second_order)
    theta, carry, trajectory = unroll(rule, Parabola(), theta_0, options)
    return theta, Parabola().loss(theta, carry, num_steps)[0], trajectory


def test_by_hand():
    """With loss = theta^2 / 2 and rate 0.1: 4 -> 3.6 -> 3.24."""
    rule = SGD(0.1, dtype="float64")
    theta = tf.constant([4.0], tf.float64)
    for num_steps, expected in ((1, 3.6), (2, 3.24)):
        moved, _, trajectory = adapted_loss(rule, theta, num_steps, False)
        np.testing.assert_allclose(moved, [expected], rtol=1e-12)
    np.testing.assert_allclose(trajectory.losses, [4.0**2 / 2, 3.6**2 / 2], rtol=1e-12)
    np.testing.assert_array_equal(trajectory.traces[FORGET_GATES], [[1.0], [1.0]])
    np.testing.assert_allclose(trajectory.traces[INPUT_GATES], [[0.1], [0.1]])


def test_a_falling_rate_by_hand():
    """With loss = theta^2 / 2 and rate 0.1 / (1 + (t - 1)): 4 -> 3.6 -> 3.6 * 0.95 = 3.42."""
    rule = SGD(0.1, decay=1.0, dtype="float64")
    moved, _, trajectory = adapted_loss(rule, tf.constant([4.0], tf.float64), 2, False)
    np.testing.assert_allclose(moved, [3.42], rtol=1e-12)
    np.testing.assert_allclose(trajectory.traces[INPUT_GATES], [[0.1], [0.05]], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.1, decay=-1), "^inner_decay must be a number at least 0, got -1"),
        (lambda: SGD(0.0), "^inner_rate must be a number above 0, got 0"),
        (lambda: MetaSGD(0.0, 0.1), "^meta_sgd_rates must be numbers above 0, .*got 0"),
        (lambda: MetaSGD(0.2, 0.1), "^meta_sgd_rates must be two numbers, .* first; got 0.2,0.1"),
    ],
)
def test_rates_that_cannot_be_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


@pytest.mark.parametrize("num_steps", [1, 5])
@pytest.mark.parametrize("second_order", [False, True])
def test_the_meta_gradient_of_maml_on_a_quadratic(num_steps, second_order):
    """It is (1 - a)^(2T) theta_0 with second order, and (1 - a)^T theta_0 in first-order MAML."""
    a, theta_0 = 0.3, tf.Variable([2.0], dtype=tf.float64)
    with tf.GradientTape() as tape:
        start = tf.convert_to_tensor(theta_0)
        _, loss, _ = adapted_loss(SGD(a, dtype="float64"), start, num_steps, second_order)
    power = 2 * num_steps if second_order else num_steps
    expected = (1 - a) ** power * theta_0.numpy()
    np.testing.assert_allclose(tape.gradient(loss, theta_0), expected, rtol=1e-12)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_meta_gradient_of_a_learned_rate_on_a_quadratic(num_steps):
    """d/da of (1 - a)^(2T) theta_0^2 / 2 is -T (1 - a)^(2T - 1) theta_0^2 for either rule."""
    a, theta_0 = 0.3, tf.constant([2.0], tf.float64)
    for rule in (SGD(a, learned=True, dtype="float64"), MetaSGD(a, a, dtype="float64")):
        rule.build(blocks(1))
        with tf.GradientTape() as tape:
            _, loss, _ = adapted_loss(rule, theta_0, num_steps, True)
        (weight,) = rule.trainable_weights
        expected = -num_steps * (1 - a) ** (2 * num_steps - 1) * 4.0
        gradient = tape.gradient(loss, weight.value)
        np.testing.assert_allclose(np.ravel(gradient), [expected], rtol=1e-6)


def test_only_learned_rates_are_weights():
    fixed, learned, meta_sgd = SGD(0.1), SGD(0.1, learned=True), MetaSGD(0.005, 0.1)
    for rule in (fixed, learned, meta_sgd):
        rule.build(blocks_of([("kernel", (4, 10)), ("bias", (10,))]))
    assert fixed.weights == []
    assert [w.shape for w in learned.trainable_weights] == [()]
    assert [w.shape for w in meta_sgd.trainable_weights] == [(50,)]
    rates = meta_sgd.rate.numpy()
    assert rates.min() >= 0.005
    assert rates.max() <= 0.1
    assert rates.std() > 0.01


def test_rates_of_a_rule_that_is_not_built_come_with_its_blocks():
    """A copy by its config is not built before it gets blocks."""
    rule = MetaSGD(0.2, 0.3)
    for is_built in (False, True):
        if is_built:
            rule.build(blocks(4))
        copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
        assert copy.built == is_built
    assert copy.rate.shape == (4,)
