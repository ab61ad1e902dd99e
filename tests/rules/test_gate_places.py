"""Tests gates and rates that depend on tensor and update, against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.options import OptionError
from tf_metalstm.parameters import blocks_of
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.rules.layer_sgd import LayerSGD
from tf_metalstm.rules.meta_lstm import MetaLSTM
from tf_metalstm.rules.places import of_blocks, of_coordinates
from tf_metalstm.settings import UnusedOptionError, make_settings

BLOCKS = blocks_of([("conv/kernel", (2,)), ("linear/kernel", (2, 1)), ("linear/bias", (1,))])
# The last two tensors exist for each class, so theta of 3 classes is 0 0 | 1 1 2 | 1 1 2 | 1 1 2.
ROWS = BLOCKS[:1] + tuple(block._replace(per_class=True) for block in BLOCKS[1:])
TENSORS = [0, 0, 1, 1, 2, 1, 1, 2, 1, 1, 2]
P = len(TENSORS)


def numbers(seed, *shape):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def built(**options):
    rule = MetaLSTM(3, dtype="float64", gate_updates=2, **options)
    rule.build(ROWS)
    for index, weight in enumerate(rule.weights):
        weight.assign(np.random.default_rng(index).normal(0.0, 0.5, weight.shape))
    return rule


def path(rule, updates=3):
    """Returns theta and the gates after each update."""
    theta = numbers(0, P)
    state, found = rule.initial_state(theta), []
    for t in range(updates):
        before, gradient = theta, numbers(t + 1, P)
        theta, state = rule(gradient, tf.constant(0.7, tf.float64), theta, state)
        trace = rule.trace(state)
        gates = [trace[name].numpy() for name in (FORGET_GATES, INPUT_GATES)]
        np.testing.assert_allclose(theta, gates[0] * before - gates[1] * gradient, rtol=1e-12)
        found.append(gates)
    return found


def test_values_of_blocks_are_repeated_for_each_class():
    theta = tf.zeros([P])
    np.testing.assert_array_equal(of_blocks(tf.constant([0, 1, 2]), ROWS, theta), TENSORS)
    each = of_coordinates(tf.range(5), ROWS, theta)
    np.testing.assert_array_equal(each, [0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4])
    fixed = of_coordinates(tf.range(5), BLOCKS, tf.zeros([5]))
    np.testing.assert_array_equal(fixed, range(5))

    @tf.function(input_signature=[tf.TensorSpec([None])])
    def unknown(theta):
        return of_blocks(tf.constant([0, 1, 2]), ROWS, theta)

    np.testing.assert_array_equal(unknown(theta), TENSORS)


def test_multipliers_act_on_the_rate_and_on_the_weight_decay():
    """Without feedback the gates are known, so the effect of the multipliers can be computed."""
    rule = built(gate_places="multipliers")
    for weight in rule.second_layer.weights:
        weight.assign(tf.zeros_like(weight))  # both gates are 1/2
    forget, entry = (np.array(weight) for weight in rule.multipliers.weights)
    for t, gates in enumerate(path(rule)):
        row = min(t, 1)  # the first two updates have separate multipliers
        np.testing.assert_allclose(gates[0], 1.0 - 0.5 * forget[row][TENSORS], rtol=1e-12)
        np.testing.assert_allclose(gates[1], 0.5 * entry[row][TENSORS], rtol=1e-12)


def test_multipliers_of_one_change_nothing_and_are_not_fed_back():
    rule, plain = built(gate_places="multipliers"), built()
    plain.set_weights([w for w in rule.get_weights() if w.shape != (2, 3)])
    for weight in rule.multipliers.weights:
        weight.assign(tf.ones_like(weight))
    np.testing.assert_array_equal(path(rule), path(plain))


def test_the_vectors_of_tensor_and_update_are_further_inputs():
    """By hand: the first layer is an LSTM of loss, gradient and the two vectors."""
    rule = built(gate_places="inputs", place_units=2)
    kernel, _, bias = (np.array(w) for w in rule.first_layer.weights)
    u, v = np.array(rule.vectors.tensor_vectors), np.array(rule.vectors.update_vectors)
    theta, gradient = numbers(0, P), numbers(1, P)
    _, state = rule(gradient, tf.constant(0.7, tf.float64), theta, rule.initial_state(theta))
    for p, tensor in enumerate(TENSORS):
        g = gradient.numpy()[p]
        seen = [np.log(0.7) / 10, 1.0, np.log(abs(g)) / 10, np.sign(g), *u[tensor], *v[0]]
        entry, forget, cell, out = np.split(np.dot(seen, kernel) + bias, 4)
        cell = sigmoid(entry) * np.tanh(cell)  # the cell was 0, so the forget gate has no effect
        del forget
        np.testing.assert_allclose(state.hidden[p], sigmoid(out) * np.tanh(cell), rtol=1e-10)
    gates = path(rule)
    rule.vectors.update_vectors.assign(v[::-1])
    assert np.abs(np.subtract(path(rule)[0], gates[0])).max() > 1e-3


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def slow_gru(seen, hidden, weights):
    """Returns the next state of Keras's GRU for one example; gates: update, reset, candidate."""
    kernel, recurrent, (bias, recurrent_bias) = weights
    update, reset, candidate = np.split(np.dot(seen, kernel) + bias, 3)
    update_h, reset_h, candidate_h = np.split(np.dot(hidden, recurrent) + recurrent_bias, 3)
    update = sigmoid(update + update_h)
    return update * hidden + (1 - update) * np.tanh(
        candidate + sigmoid(reset + reset_h) * candidate_h
    )


def copy_layers(rule, plain):
    plain.first_layer.set_weights(rule.first_layer.get_weights())
    plain.second_layer.set_weights(rule.second_layer.get_weights())


def test_a_network_sees_the_gradient_of_a_tensor_as_a_whole():
    """The logits of the gates differ from the paper's by what a GRU in NumPy says of the tensor."""
    rule, plain = built(gate_places="tensors", gate_units=2), built()
    copy_layers(rule, plain)
    gru, readout = rule.tensor_gates.cell.get_weights(), np.array(rule.tensor_gates.readout)
    for layer in (
        rule.second_layer,
        plain.second_layer,
    ):  # no theta, no feedback: they would differ
        for weight in (layer.forget_kernel, layer.input_kernel):
            weight.assign(tf.tensor_scatter_nd_update(weight, [[3, 0], [4, 0]], [0.0, 0.0]))
    logit = lambda gate: np.log(gate / (1.0 - gate))  # noqa: E731
    hidden = np.zeros([3, 2])
    for t, (found, without) in enumerate(zip(path(rule), path(plain), strict=True)):
        gradient = numbers(t + 1, P).numpy()
        for tensor in range(3):
            of_tensor = gradient[np.equal(TENSORS, tensor)]
            seen = [np.log(np.sqrt(np.mean(of_tensor**2))), 0.7]
            hidden[tensor] = slow_gru(seen, hidden[tensor], gru)
        for column in range(2):
            added = logit(found[column]) - logit(without[column])
            np.testing.assert_allclose(added, (hidden @ readout)[TENSORS, column], atol=1e-8)
    assert np.ptp(hidden @ readout, axis=0).min() > 1e-3


def test_the_network_of_the_tensors_starts_as_the_paper():
    rule = MetaLSTM(3, dtype="float64", gate_places="tensors")
    rule.build(ROWS)
    plain = MetaLSTM(3, dtype="float64")
    plain.build()
    copy_layers(rule, plain)
    np.testing.assert_array_equal(path(rule), path(plain))


@pytest.mark.parametrize("places", ["multipliers", "inputs", "tensors"])
def test_survives_serialization(places):
    rule = built(gate_places=places, forget_gate_bias=(8.0, 9.0), input_gate_bias=(-9.0, -8.0))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
    copy.set_weights(rule.get_weights())
    np.testing.assert_array_equal(path(copy), path(rule))


def test_gates_that_begin_shut_leave_theta_as_it_is():
    rule = MetaLSTM(3, dtype="float64", forget_gate_bias=(8.0, 9.0), input_gate_bias=(-9.0, -8.0))
    rule.build()
    theta, gradient = numbers(0, 4), numbers(1, 4)
    moved, _ = rule(gradient, tf.constant(0.7, tf.float64), theta, rule.initial_state(theta))
    assert np.abs(moved - theta).max() < 1e-3
    with pytest.raises(OptionError, match=r"^input_gate_bias must be two numbers, LOW,HIGH"):
        MetaLSTM(input_gate_bias=(1.0,))


def test_layer_sgd_has_a_rate_for_each_tensor_and_update():
    rule = LayerSGD(0.1, 2, dtype="float64")
    rule.build(ROWS)
    np.testing.assert_allclose(rule.rate, np.full((2, 3), 0.1), rtol=1e-7)
    rates = np.random.default_rng(0).normal(size=(2, 3))
    rule.rate.assign(rates)
    for t, (forget, entry) in enumerate(path(rule)):
        np.testing.assert_array_equal(forget, np.ones(P))
        np.testing.assert_allclose(entry, rates[min(t, 1)][TENSORS], rtol=1e-12)


def test_options_that_do_nothing_are_refused():
    make_settings({"gate_places": "multipliers", "gate_updates": 3})
    message = "^gate_updates does nothing without gate_places=multipliers or inputs"
    with pytest.raises(UnusedOptionError, match=message):
        make_settings({"gate_updates": 3})
    with pytest.raises(
        UnusedOptionError, match=r"^place_units does nothing without gate_places=inp"
    ):
        make_settings({"gate_places": "multipliers", "place_units": 3})
    with pytest.raises(
        UnusedOptionError, match=r"^gate_units does nothing without gate_places=tens"
    ):
        make_settings({"gate_units": 3})
