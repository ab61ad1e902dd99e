"""Tests the rule against the oracle, by hand, under permutation, and through serialization."""

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
import toy
from hypothesis import given
from hypothesis import strategies as st

from tf_metalstm.options import OptionError
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.rules.meta_lstm import MetaLSTM, MetaLSTMCell
from tf_metalstm.rules.preprocessing import preprocess


def random_rule(gate_feedback="value", hidden_units=4, dtype="float64", scale=0.7, p=10.0):
    """Returns a rule with weights so large that every term matters."""
    rule = MetaLSTM(hidden_units, gate_feedback, p, dtype=dtype)
    rule.build()
    generator = np.random.default_rng(1)
    rule.set_weights([generator.normal(0.0, scale, w.shape) for w in rule.weights])
    return rule


def weights_for_oracle(rule):
    named = {w.path.split("/")[-1]: w.numpy() for w in rule.weights}
    return {
        "first_layer": (named["kernel"], named["recurrent_kernel"], named["bias"]),
        "W_F": named["forget_kernel"],
        "b_F": float(named["forget_bias"]),
        "W_I": named["input_kernel"],
        "b_I": float(named["input_bias"]),
    }


def random_path(num_steps, num_coordinates):
    """Returns gradients of many magnitudes (also zero, and both branches), losses, and theta_0."""
    generator = np.random.default_rng(2)
    shape = (num_steps, num_coordinates)
    gradients = generator.normal(size=shape) * 10.0 ** generator.uniform(-7, 1, shape)
    gradients[0, 0] = 0.0
    return gradients, generator.uniform(0.0, 3.0, num_steps), generator.normal(size=shape[1])


def run(rule, gradients, losses, theta):
    state = rule.initial_state(theta)
    thetas, forgets, inputs = [], [], []
    for gradient, loss in zip(tf.unstack(gradients), tf.unstack(losses), strict=True):
        theta, state = rule(gradient, loss, theta, state)
        trace = rule.trace(state)
        thetas.append(theta)
        forgets.append(trace[FORGET_GATES])
        inputs.append(trace[INPUT_GATES])
    return tuple(map(tf.stack, (thetas, forgets, inputs)))


@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize(("gate_feedback", "p"), [("value", 10.0), ("logit", 10.0), ("value", 7.0)])
@pytest.mark.parametrize("num_coordinates", [1, 7])
@pytest.mark.parametrize("num_steps", [1, 5])
def test_agrees_with_the_oracle(num_steps, num_coordinates, gate_feedback, p, in_graph):
    rule = random_rule(gate_feedback, p=p)
    gradients, losses, theta = random_path(num_steps, num_coordinates)
    expected = oracle.meta_lstm(
        weights_for_oracle(rule), gradients, losses, theta, gate_feedback, p
    )
    function = tf.function(run, autograph=False) if in_graph else run
    actual = function(rule, tf.constant(gradients), tf.constant(losses), tf.constant(theta))
    for name, want, got in zip(("theta", "forget", "input"), expected, actual, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12, err_msg=name)


def test_the_two_feedbacks_differ():
    path = [tf.constant(x) for x in random_path(3, 5)]
    by_value, by_logit = (run(random_rule(kind), *path)[0] for kind in ("value", "logit"))
    np.testing.assert_allclose(by_value[0], by_logit[0], rtol=1e-12)  # zeros are fed back at first
    assert np.abs(by_value[1] - by_logit[1]).max() > 1e-3


def test_by_hand_on_a_parabola():
    """With loss = theta^2 / 2, f = 1, i = 0.1: 4 -> 3.6 -> 3.24."""
    cell = MetaLSTMCell(hidden_units=3, dtype="float64")
    cell.build()
    cell.set_weights([np.zeros((5, 1)), np.array(40.0), np.zeros((5, 1)), np.log(0.1 / 0.9)])
    theta = tf.constant([4.0], tf.float64)
    gates = (tf.zeros([1], tf.float64),) * 2
    path = []
    for _ in range(2):
        gradient = theta  # the derivative of theta^2 / 2
        theta, gates = cell(tf.zeros([1, 3], tf.float64), gradient, theta, gates)
        path.append(float(theta[0]))
    np.testing.assert_allclose(path, [3.6, 3.24], rtol=1e-12)
    np.testing.assert_allclose([gates.forget[0], gates.input[0]], [1.0, 0.1], rtol=1e-12)


@given(st.floats(-1e6, 1e6), st.sampled_from([1.0, 7.0, 10.0]))
def test_preprocessing_is_both_branches_of_the_paper(x, p):
    got = [float(part) for part in preprocess(tf.constant(x, tf.float64), p)]
    np.testing.assert_allclose(got, oracle.preprocess(x, p), rtol=1e-9, atol=1e-12)


def test_preprocessing_has_a_finite_derivative_at_zero():
    x = tf.Variable([0.0, 1e-6, -1.0], dtype=tf.float64)
    with tf.GradientTape() as tape:
        total = tf.add_n(preprocess(x, 10.0))
    assert np.isfinite(tape.gradient(total, x)).all()


def test_permuting_coordinates_permutes_the_result():
    rule, order = random_rule(), [3, 0, 4, 1, 2]
    gradients, losses, theta = random_path(3, 5)
    straight = run(rule, *map(tf.constant, (gradients, losses, theta)))[0]
    permuted = run(rule, *map(tf.constant, (gradients[:, order], losses, theta[order])))[0]
    np.testing.assert_allclose(permuted, tf.gather(straight, order, axis=1), rtol=1e-12)


def test_starts_as_gradient_descent_with_small_rates():
    rule = MetaLSTM()
    rule.build()
    theta = toy.noise(50)
    _, state = rule(toy.noise(50, seed=1), tf.constant(1.6), theta, rule.initial_state(theta))
    forget, entry = (rule.trace(state)[name] for name in (FORGET_GATES, INPUT_GATES))
    assert np.min(forget) > 0.978
    assert np.max(forget) < 0.995
    assert np.min(entry) > 0.005
    assert np.max(entry) < 0.022
    small = [w for w in rule.weights if w.path.split("/")[-1] not in ("forget_bias", "input_bias")]
    assert max(np.abs(w.numpy()).max() for w in small) <= 0.01
    assert sum(int(np.prod(w.shape)) for w in rule.weights) == 2046


def test_float32_is_close_to_float64_over_few_updates():
    path = random_path(2, 9)
    wide = run(random_rule(dtype="float64"), *map(tf.constant, path))[0]
    narrow = run(random_rule(dtype="float32"), *(tf.constant(x.astype(np.float32)) for x in path))[
        0
    ]
    assert narrow.dtype == tf.float32
    np.testing.assert_allclose(narrow, wide, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gate_feedback", ["value", "logit"])
def test_survives_serialization(gate_feedback):
    rule = MetaLSTM(7, gate_feedback, preprocessing_scale=8.0, dtype="float64")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
    assert (copy.hidden_units, copy.gate_feedback, copy.preprocessing_scale) == (
        7,
        gate_feedback,
        8.0,
    )
    rule.build(), copy.build()
    copy.set_weights(rule.get_weights())
    path = [tf.constant(x) for x in random_path(2, 3)]
    np.testing.assert_array_equal(run(rule, *path)[0], run(copy, *path)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gate_feedback": "values"}, "^gate_feedback must be one of value, logit, got 'values'"),
        ({"hidden_units": 0}, "^hidden_units must be a whole number at least 1, got 0"),
        ({"preprocessing_scale": 0.0}, "^preprocessing_scale must be a number above 0, got 0"),
    ],
)
def test_refuses_what_it_does_not_know(arguments, message):
    with pytest.raises(OptionError, match=message):
        MetaLSTM(**arguments)


def test_without_a_first_layer_the_gates_see_gradient_and_loss():
    """Computes "v1" by hand, one coordinate after the other."""
    rule = MetaLSTM(first_layer="none", dtype="float64")
    rule.build()
    assert [tuple(w.shape) for w in rule.weights] == [(6, 1), (), (6, 1), ()]
    generator = np.random.default_rng(1)
    rule.set_weights([generator.normal(0.0, 0.5, w.shape) for w in rule.weights])
    gradients, losses, theta_0 = random_path(3, 2)
    found, forgets, inputs = run(rule, *map(tf.constant, (gradients, losses, theta_0)))
    named = weights_of_gates(rule)
    for coordinate in range(2):
        theta, forget, entry = theta_0[coordinate], 0.0, 0.0
        for t in range(3):
            gradient = gradients[t, coordinate]
            seen = [*oracle.preprocess(losses[t], 10.0), *oracle.preprocess(gradient, 10.0)]
            forget, entry = (
                oracle.sigmoid(float(np.dot([*seen, theta, back], kernel[:, 0]) + bias))
                for (kernel, bias), back in zip(named, (forget, entry), strict=True)
            )
            theta = forget * theta - entry * gradient
            np.testing.assert_allclose(
                [found[t, coordinate], forgets[t, coordinate], inputs[t, coordinate]],
                [theta, forget, entry],
                rtol=1e-10,
            )


def weights_of_gates(rule):
    """Returns (kernel, bias) of the forget gate and of the input gate."""
    values = [w.numpy() for w in rule.second_layer.weights]
    return (values[0], values[1]), (values[2], values[3])
