"""Tests the hierarchical RNN against a slow version in NumPy, and the exchange between levels."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.parameters import blocks_of
from tf_metalstm.rules.hierarchical_rnn import HierarchicalRNN

SIZES = (3, 1, 2)
BLOCKS = blocks_of([("a", (3,)), ("b", ()), ("c", (1, 2))])
P = 6


def rule_of(blocks=BLOCKS, **options):
    rule = HierarchicalRNN(3, 2, 4, 1e-2, 1e-1, dtype="float64", **options)
    rule.build(blocks)
    generator = np.random.default_rng(3)
    rule.set_weights([w + generator.normal(0.0, 0.4, w.shape) for w in rule.get_weights()])
    return rule


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def gru(cell, x, h, outer):
    """Computes one row of a GRU; the gates r and u come first, then the candidate."""
    units = len(h)
    kernel, bias, candidate_kernel, candidate_bias = (w.numpy() for w in cell.weights)
    r, u = np.split(sigmoid(np.concatenate([x, h]) @ kernel + bias + outer[: 2 * units]), 2)
    candidate = np.concatenate([x, r * h]) @ candidate_kernel + candidate_bias
    return u * h + (1 - u) * np.tanh(candidate + outer[2 * units :])


def oracle(rule, theta, gradients, log_rates):
    """Updates one coordinate after the other, as in section 3 and the appendix of the paper."""
    names = ("tensor_to_coordinate", "global_to_coordinate", "global_to_tensor")
    from_tensor, from_global, to_tensor = (getattr(rule, name).kernel.numpy() for name in names)
    h, tensors, whole = (start.numpy()[0] for start in rule.starts)
    h, tensors = [h.copy() for _ in range(P)], [tensors.copy() for _ in SIZES]
    gbar, scale = np.zeros([P, 4]), np.zeros([P, 4])
    beta, gamma, log_rates = np.zeros(P), np.zeros(P), log_rates.copy()
    readout, bias = rule.readout_kernel.numpy(), rule.readout_bias.numpy()
    momentum = sigmoid(rule.rate_momentum.numpy())
    limit = np.log(rule.largest_rate or np.exp(33))
    theta = theta.copy()
    for gradient in gradients:
        mean_rate, start, above = log_rates.mean(), 0, [t.copy() for t in tensors]
        new_rates = log_rates.copy()
        for number, size in enumerate(SIZES):
            own, directions, read_by_tensor = range(start, start + size), [], []
            for i in own:
                scaled = []
                for s in range(4):
                    decay = beta[i] ** (0.5**s)
                    gbar[i, s] = decay * gbar[i, s] + (1 - decay) * gradient[i]
                    square = gbar[i, s] ** 2 + 1e-12
                    scale[i, s] = gamma[i] * scale[i, s] + (1 - gamma[i]) * square
                    scaled.append(np.arcsinh(gbar[i, s] / np.sqrt(scale[i, s] + 1e-16)))
                logs = np.log(scale[i] + 1e-16)
                x = [*scaled, *(scaled[s] * scaled[s + 1] for s in range(3))]
                x = np.array([*x, *(logs - logs.mean()), log_rates[i] - mean_rate])
                outer = above[number] @ from_tensor + whole @ from_global
                h[i] = gru(rule.coordinate_cell, x, h[i], outer)
                read_by_tensor.append(np.concatenate([h[i], x]))
                directions.append(h[i] @ readout[:, 0] + scaled @ rule.shortcut.numpy())
            length = np.sqrt(np.mean(np.square(directions)) + 1e-16)
            for i, direction in zip(own, directions, strict=True):
                step = min(log_rates[i] + h[i] @ readout[:, 1] + bias[0], limit)
                gamma[i] = sigmoid(h[i] @ readout[:, 2] + bias[1])
                beta[i] = sigmoid(h[i] @ readout[:, 3] + bias[2])
                theta[i] -= np.exp(step + rule.step_offset.numpy()) * direction / length
                new_rates[i] = momentum * log_rates[i] + (1 - momentum) * step
            read = np.mean(read_by_tensor, axis=0)
            tensors[number] = gru(rule.tensor_cell, read, above[number], whole @ to_tensor)
            start += size
        whole = gru(rule.global_cell, np.mean(tensors, axis=0), whole, np.zeros(12))
        log_rates = new_rates
    return theta


@pytest.mark.parametrize(("num_steps", "largest_rate"), [(1, None), (5, None), (5, 0.03)])
def test_it_agrees_with_a_slow_one(num_steps, largest_rate):
    rule, generator = rule_of(largest_rate=largest_rate), np.random.default_rng(0)
    theta = generator.normal(size=P)
    gradients = generator.normal(size=(num_steps, P)) * 10.0 ** generator.integers(-4, 2, P)
    state = rule.initial_state(tf.constant(theta))
    expected = oracle(rule, theta, gradients, state.log_rates.numpy())
    moved = tf.constant(theta)
    for gradient in gradients:
        moved, state = rule(tf.constant(gradient), tf.constant(0.0), moved, state)
    np.testing.assert_allclose(moved, expected, rtol=1e-9)
    assert np.abs(moved - theta).min() > 1e-4


def test_every_tensor_reaches_the_others_through_the_whole():
    """The authors' code passes on only the last tensor; here the first one counts too."""
    rule, ends = rule_of(), []
    for sign in (1.0, -1.0):  # a common factor on all gradients would change nothing
        theta = tf.zeros([P], tf.float64)
        state = rule.initial_state(theta)
        for first in (0.1, 0.2 * sign, 0.1, 0.1):
            gradient = tf.constant([first, -first, first, 0.3, 0.4, 0.5], tf.float64)
            theta, state = rule(gradient, tf.constant(0.0), theta, state)
        ends.append(theta.numpy()[3:])
    assert np.abs(ends[0] - ends[1]).min() > 1e-9


def test_first_rates_lie_in_their_range_and_differ_from_tensor_to_tensor():
    rule = HierarchicalRNN(low=1e-6, high=1e-2)
    rule.build(blocks_of([("a", (500,)), ("b", (500,))]))
    rates = rule.trace(rule.initial_state(tf.zeros([1000])))["rates"].numpy()
    assert rates.min() > 1e-6
    assert rates.max() < 1e-2
    logs = np.log(rates).reshape(2, 500)
    assert np.abs(np.diff(logs.mean(axis=1))) > 0.1
    # Within a tensor the range is half as wide: uniform over ln(1e4) / 2.
    np.testing.assert_allclose(logs.std(axis=1), np.log(1e4) / 2 / np.sqrt(12), rtol=0.1)


def test_a_direction_has_length_one_so_the_first_step_is_the_rate():
    """With initial weights, steps have a root mean square of rate / e."""
    rule = HierarchicalRNN(low=0.1, high=0.1, dtype="float64")
    rule.build(BLOCKS)
    theta = tf.zeros([P], tf.float64)
    gradient = tf.constant(np.random.default_rng(0).normal(size=P) * 1e3)
    moved, _ = rule(gradient, tf.constant(0.0), theta, rule.initial_state(theta))
    for part in tf.split(moved, SIZES):
        np.testing.assert_allclose(np.sqrt(np.mean(part**2)), 0.1 / np.e, rtol=1e-6)


def test_its_number_of_weights():
    rule = HierarchicalRNN()
    rule.build(BLOCKS)
    assert sum(int(tf.size(w)) for w in rule.weights) == 8229
