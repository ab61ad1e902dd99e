"""What every rule promises, whichever it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop, adapt
from tf_metalstm.rules.catalogue import RULES, make_rule

P = 6


def built(name, num_parameters=P, **options):
    rule = make_rule(name, **{"dtype": "float64", **options})
    rule.build((num_parameters,))
    return rule


# Others than by default, so that what is lost on the way is missed.
OPTIONS = {
    "meta_lstm": {"hidden_units": 3, "gate_feedback": "logit", "preprocessing_scale": 8.0},
    "sgd": {"rate": 0.3, "decay": 0.5, "learned": True},
    "meta_sgd": {"low": 0.2, "high": 0.3},
}


def numbers(seed, *shape):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


@pytest.fixture(params=RULES)
def rule(request):
    return built(request.param)


def test_theta_is_forget_times_theta_minus_input_times_gradient(rule):
    theta, gradient = numbers(0, P), numbers(1, P)
    moved, state = rule(gradient, tf.constant(0.7, tf.float64), theta, rule.initial_state(theta))
    gates = rule.gates(state)
    assert moved.shape == gates.forget.shape == gates.input.shape == (P,)
    assert moved.dtype == tf.float64
    np.testing.assert_allclose(moved, gates.forget * theta - gates.input * gradient, rtol=1e-12)
    assert np.abs(moved - theta).max() > 1e-6


def test_the_state_keeps_its_structure(rule):
    theta = numbers(0, P)
    before = rule.initial_state(theta)
    _, after = rule(numbers(1, P), tf.constant(0.7, tf.float64), theta, before)
    tf.nest.assert_same_structure(before, after)
    for one, other in zip(tf.nest.flatten(before), tf.nest.flatten(after), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize("name", RULES)
def test_survives_serialization_and_takes_its_weights_along(name):
    rule = built(name, **OPTIONS[name])
    assert OPTIONS[name].items() <= rule.get_config().items()
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
    if not copy.built:
        copy.build((P,))
    assert copy.get_config() == rule.get_config()
    copy.set_weights(rule.get_weights())
    theta, gradient, loss = numbers(0, P), numbers(1, P), tf.constant(0.7, tf.float64)
    one, other = (r(gradient, loss, theta, r.initial_state(theta))[0] for r in (rule, copy))
    np.testing.assert_array_equal(one, other)


def test_the_same_eager_and_in_a_graph(rule):
    def updates(theta):
        state = rule.initial_state(theta)
        for t in range(3):
            theta, state = rule(numbers(t, P), tf.constant(0.5, tf.float64), theta, state)
        return theta

    np.testing.assert_allclose(updates(numbers(9, P)), tf.function(updates)(numbers(9, P)))


@pytest.mark.parametrize("second_order", [False, True])
def test_every_weight_has_a_meta_gradient_that_finite_differences_confirm(rule, second_order):
    learner = toy.mlp_learner()
    # With 20 hidden units it would be the same test seven times over.
    few = {"meta_lstm": {"hidden_units": 3}, "sgd": {"learned": True}}
    rule = built(rule.name, learner.num_parameters, **few.get(rule.name, {}))
    assert rule.trainable_weights
    for weight in rule.weights:  # a meta-LSTM starts so small that nothing could be seen
        noise = np.random.default_rng(3).normal(0.0, 0.3, weight.shape)
        weight.assign(weight + (noise if rule.name == "meta_lstm" else np.abs(noise)))
    support, query = toy.vector_support(), toy.vector_support(seed=8)
    theta_0 = tf.constant(learner.initial_parameters())
    options = InnerLoop(num_steps=1 if not second_order else 3, second_order=second_order)

    def query_loss():
        adapted, _ = adapt(learner, rule, theta_0, support, options)
        logits, _ = learner.apply(*adapted, query.inputs, training=True)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(query.labels, logits))

    variables = [w.value for w in rule.trainable_weights]
    with tf.GradientTape() as tape:
        value = query_loss()
    for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
        for index in list(np.ndindex(*variable.shape))[::2]:
            start, step = variable.numpy(), 1e-5
            ends = []
            for sign in (1, -1):
                moved = np.array(start)
                moved[index] += sign * step
                variable.assign(moved)
                ends.append(float(query_loss()))
            variable.assign(start)
            expected = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(gradient.numpy()[index], expected, rtol=1e-5, atol=1e-9)
