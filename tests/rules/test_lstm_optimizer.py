"""Tests the LSTM optimizer against the oracle, and with difficult inputs."""

import numpy as np
import oracle
import pytest
import tensorflow as tf

from tf_metalstm.options import OptionError
from tf_metalstm.rules.lstm_optimizer import RULE_INPUTS, LSTMOptimizer

P, T = 3, 4


def random_rule(rule_inputs, **options):
    """Returns a rule with weights so large that every term matters."""
    rule = LSTMOptimizer(3, 7.0, rule_inputs, 0.3, 0.2, dtype="float64", **options)
    rule.build()
    generator = np.random.default_rng(1)
    rule.set_weights([generator.normal(0.0, 0.7, w.shape) for w in rule.weights])
    return rule


def weights_for_oracle(rule):
    found = {
        "first_layer": [w.numpy() for w in rule.first_layer.weights],
        "second_layer": [w.numpy() for w in rule.second_layer.weights],
        "output": [w.numpy() for w in rule.output_layer.weights],
    }
    if rule.embedding is not None:
        found["embedding"] = [w.numpy() for w in rule.embedding.weights]
    if rule.direct_layer is not None:
        found["direct"] = [w.numpy() for w in rule.direct_layer.weights]
    return found


def random_gradients():
    """Returns gradients of many magnitudes, on both sides of exp(-p)."""
    generator = np.random.default_rng(2)
    return generator.normal(size=(T, P)) * 10.0 ** generator.uniform(-5, 1, (T, P))


def run(rule, gradients, theta):
    state, thetas = rule.initial_state(theta), []
    for gradient in tf.unstack(gradients):
        theta, state = rule(gradient, tf.zeros([], tf.float64), theta, state)
        thetas.append(theta)
    return tf.stack(thetas)


@pytest.mark.parametrize("rule_inputs", RULE_INPUTS)
def test_agrees_with_the_oracle(rule_inputs):
    rule, gradients = random_rule(rule_inputs), random_gradients()
    theta = np.random.default_rng(3).normal(size=P)
    expected = oracle.lstm_optimizer(
        weights_for_oracle(rule), gradients, theta, rule_inputs, 7.0, (0.3, 0.2)
    )
    found = run(rule, tf.constant(gradients), tf.constant(theta))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rule_inputs", RULE_INPUTS)
def test_gradients_of_zero_move_no_weight_to_not_a_number(rule_inputs):
    """A unit that never fires has zero gradients. Values and meta-gradients stay finite."""
    rule = random_rule(rule_inputs)
    weights = [w.value for w in rule.trainable_weights]
    gradient = tf.zeros([2, P], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(gradient)
        theta = run(rule, gradient, tf.zeros([P], tf.float64))[-1]
    for found in (theta, *tape.gradient(theta, [*weights, gradient])):
        assert np.all(np.isfinite(found))


def test_normalized_inputs_do_not_see_the_scale_of_the_loss():
    rule, gradients = random_rule("normalized"), random_gradients()
    theta = tf.zeros([P], tf.float64)
    np.testing.assert_allclose(
        run(rule, tf.constant(gradients), theta),
        run(rule, tf.constant(1000.0 * gradients), theta),
        rtol=1e-3,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule_inputs": "raw"}, "^rule_inputs must be one of log_and_sign, gradient, normalized"),
        ({"output_scale": 0.0}, "^output_scale must be a number above 0, got 0"),
        ({"input_scale": -1.0}, "^input_scale must be a number above 0, got -1"),
    ],
)
def test_refuses_what_cannot_be(options, message):
    with pytest.raises(OptionError, match=message):
        LSTMOptimizer(**options)
