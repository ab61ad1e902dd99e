"""The rules of MAML and Meta-SGD against arithmetic that can be done by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop, adapt
from tf_metalstm.episode import Support
from tf_metalstm.objectives import mean_squared_error
from tf_metalstm.rules.meta_sgd import MetaSGD
from tf_metalstm.rules.sgd import SGD


class Parameter:
    """A learner whose output is its one parameter: the loss below is theta^2 / 2."""

    def initial_statistics(self):
        return np.zeros([0])

    def apply(self, theta, statistics, inputs, training):
        del inputs, training
        return theta / np.sqrt(2.0), statistics


EPISODE = Support(tf.zeros([1], tf.float64), tf.zeros([1], tf.float64))


def adapted_loss(rule, theta_0, num_steps, second_order):
    options = InnerLoop(num_steps, second_order=second_order)
    adapted, trajectory = adapt(Parameter(), rule, theta_0, EPISODE, options, mean_squared_error)
    return adapted.theta, mean_squared_error(0.0, adapted.theta / np.sqrt(2.0)), trajectory


def test_by_hand():
    """Loss = theta^2 / 2, rate 0.1: 4 -> 3.6 -> 3.24."""
    rule = SGD(0.1, dtype="float64")
    theta = tf.constant([4.0], tf.float64)
    for num_steps, expected in ((1, 3.6), (2, 3.24)):
        moved, _, trajectory = adapted_loss(rule, theta, num_steps, False)
        np.testing.assert_allclose(moved, [expected], rtol=1e-12)
    np.testing.assert_allclose(trajectory.losses, [4.0**2 / 2, 3.6**2 / 2], rtol=1e-12)
    np.testing.assert_array_equal(trajectory.forget, [[1.0], [1.0]])
    np.testing.assert_allclose(trajectory.input, [[0.1], [0.1]])


def test_a_falling_rate_by_hand():
    """Loss = theta^2 / 2, rate 0.1 / (1 + (t - 1)): 4 -> 3.6 -> 3.6 * 0.95 = 3.42."""
    rule = SGD(0.1, decay=1.0, dtype="float64")
    moved, _, trajectory = adapted_loss(rule, tf.constant([4.0], tf.float64), 2, False)
    np.testing.assert_allclose(moved, [3.42], rtol=1e-12)
    np.testing.assert_allclose(trajectory.input, [[0.1], [0.05]], rtol=1e-12)
    with pytest.raises(ValueError, match="--inner_decay must not be negative, got -1"):
        SGD(0.1, decay=-1)


@pytest.mark.parametrize("num_steps", [1, 5])
@pytest.mark.parametrize("second_order", [False, True])
def test_the_meta_gradient_of_maml_on_a_quadratic(num_steps, second_order):
    """(1 - a)^(2T) theta_0 through the gradients; (1 - a)^T theta_0 in first-order MAML."""
    a, theta_0 = 0.3, tf.Variable([2.0], dtype=tf.float64)
    with tf.GradientTape() as tape:
        start = tf.convert_to_tensor(theta_0)
        _, loss, _ = adapted_loss(SGD(a, dtype="float64"), start, num_steps, second_order)
    power = 2 * num_steps if second_order else num_steps
    expected = (1 - a) ** power * theta_0.numpy()
    np.testing.assert_allclose(tape.gradient(loss, theta_0), expected, rtol=1e-12)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_meta_gradient_of_a_learned_rate_on_a_quadratic(num_steps):
    """d/da of (1 - a)^(2T) theta_0^2 / 2 is -T (1 - a)^(2T - 1) theta_0^2, for either rule."""
    a, theta_0 = 0.3, tf.constant([2.0], tf.float64)
    for rule in (SGD(a, learned=True, dtype="float64"), MetaSGD(a, a, dtype="float64")):
        rule.build((1,))
        with tf.GradientTape() as tape:
            _, loss, _ = adapted_loss(rule, theta_0, num_steps, True)
        (weight,) = rule.trainable_weights
        expected = -num_steps * (1 - a) ** (2 * num_steps - 1) * 4.0
        gradient = tape.gradient(loss, weight.value)
        np.testing.assert_allclose(np.ravel(gradient), [expected], rtol=1e-6)


def test_only_learned_rates_are_weights():
    fixed, learned, meta_sgd = SGD(0.1), SGD(0.1, learned=True), MetaSGD(0.005, 0.1)
    for rule in (fixed, learned, meta_sgd):
        rule.build((50,))
    assert fixed.weights == []
    assert [w.shape for w in learned.trainable_weights] == [()]
    assert [w.shape for w in meta_sgd.trainable_weights] == [(50,)]
    rates = meta_sgd.rate.numpy()
    assert rates.min() >= 0.005
    assert rates.max() <= 0.1
    assert rates.std() > 0.01
