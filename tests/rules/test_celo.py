"""Tests Celo against a slow version of its authors' code in NumPy, and the format of their file."""

import msgpack
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm import Celo, LearnedOptimizer
from tf_metalstm.options import OptionError
from tf_metalstm.parameters import blocks_of
from tf_metalstm.rules.celo import CeloOptions
from tf_metalstm.rules.celo_weights import read_published

SHAPES = {"kernel": (2, 3), "bias": (3,), "scale": (), "filters": (3, 2, 3)}
BLOCKS = blocks_of(SHAPES.items())
P = sum(block.size for block in BLOCKS)
GROUPS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
DECAYS = np.array([0.9, 0.99, 0.999])


def published(seed=0):
    """Returns random arrays in the format of the authors' file."""
    draw = np.random.default_rng(seed).normal
    network = {f"w0__{i}": draw(size=(1, n, 4)) * 0.5 for i, n in enumerate(GROUPS)}
    network |= {"w1": draw(size=(1, 4, 4)), "w2": draw(size=(1, 4, 3)) * 30.0}
    network |= {f"b{i}": draw(size=(1, n)) for i, n in enumerate((4, 4, 3))}
    sizes = {"linear": (18, 64), "linear_1": (18, 64), "linear_2": (18, 64)}
    sizes |= {"rnn/linear": (128, 256), "rnn_to_controls": (64, 1), "step_size": (64, 1)}
    run = {
        name: {"w": draw(size=size) * 0.2, "b": draw(size=size[1:]) * 0.2}
        for name, size in sizes.items()
    }
    run["rnn"] = {"linear": run.pop("rnn/linear")}
    start = {"hidden": draw(size=(1, 64)), "cell": draw(size=(1, 64))}
    return {"ff_mod_stack": {"~": network}, "rnn_params": run, "lstm_init_state": start}


def packed(tree):
    if isinstance(tree, dict):
        return {name: packed(value) for name, value in tree.items()}
    array = np.float32(tree)
    return msgpack.ExtType(1, msgpack.packb((array.shape, "float32", array.tobytes())))


@pytest.fixture
def path(tmp_path):
    (tmp_path / "theta.state").write_bytes(msgpack.packb(packed(published())))
    return tmp_path / "theta.state"


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def schedule(weights, features, hidden, cell):
    """Computes a row of the schedule for every tensor as the authors do. Gates: i, g, f, o."""
    run = weights["rnn_params"]

    def linear(name, x):
        return x @ np.float32(run[name]["w"]) + np.float32(run[name]["b"])

    mixed = np.maximum(linear("linear_1", features), 0.0).max(axis=0, keepdims=True)
    x = linear("linear_2", features) + mixed
    gates = np.concatenate([x, hidden], axis=1) @ np.float32(run["rnn"]["linear"]["w"])
    i, g, f, o = np.split(gates + np.float32(run["rnn"]["linear"]["b"]), 4, axis=1)
    cell = sigmoid(f + 1.0) * cell + sigmoid(i) * np.tanh(g)
    hidden = sigmoid(o) * np.tanh(cell)
    return 0.1 * np.exp(linear("step_size", hidden)[:, 0]), hidden, cell


def second_moments(v, g):
    """Returns row and column means, or full second moments, and their features, for one decay."""
    if g.ndim < 2:
        v = [d * old + (1 - d) * (g * g + 1e-30) for d, old in zip(DECAYS, v, strict=True)]
        of_g = [1.0 / np.sqrt(np.maximum(each + 1e-9, 1e-9)) for each in v]
        return v, v, v, of_g, [each**-0.5 for each in v]
    d1, d0 = np.argsort(g.shape, kind="stable")[-2:]
    after, rows, columns, factors = [], [], [], []
    for d, (row, column) in zip(DECAYS, v, strict=True):
        row = d * row + (1 - d) * (g * g + 1e-30).mean(axis=d0, keepdims=True)
        column = d * column + (1 - d) * (g * g + 1e-30).mean(axis=d1, keepdims=True)
        after.append((row, column))
        rows.append(np.broadcast_to(row, g.shape))
        columns.append(np.broadcast_to(column, g.shape))
        relative = np.maximum(row / (row.mean(axis=d1, keepdims=True) + 1e-9), 1e-9)
        factors.append(1.0 / np.sqrt(relative) / np.sqrt(np.maximum(column, 1e-9)))
    return after, rows, columns, factors, factors


def network_step(weights, p, g, m, rms, moments):
    rows, columns, of_g, of_m = moments
    root = 1.0 / np.sqrt(rms + 1e-6)
    groups = [[g], [np.clip(g, -0.1, 0.1)], [p], m, [rms], [each * root for each in m], [root]]
    groups += [[g * each for each in of_g], [g * root], rows, columns]
    groups += [[1.0 / np.sqrt(each + 1e-8) for each in both] for both in (rows, columns)]
    groups += [[one * factor for one, factor in zip(m, of_m, strict=True)]]
    network, total = weights["ff_mod_stack"]["~"], 0.0
    for i, group in enumerate(groups):
        scaled = [each / np.sqrt(1e-5 + np.mean(each**2)) for each in group]
        total = total + np.stack(scaled, axis=-1) @ np.float32(network[f"w0__{i}"][0])
    out = np.maximum(total + np.float32(network["b0"][0]), 0.0)
    out = np.maximum(out @ np.float32(network["w1"][0]) + np.float32(network["b1"][0]), 0.0)
    out = out @ np.float32(network["w2"][0]) + np.float32(network["b2"][0])
    length = np.sqrt(np.mean(p**2) + 1e-9)
    return out[..., 0] * length * np.exp(0.001 * out[..., 1]) * 0.001


def loss_features(means, minima, decays, iteration, loss):
    corrected = means / (1 - decays ** (iteration + 1))
    largest = loss if iteration == 0 else corrected.max()
    means = means * decays + min(abs(largest) * 2, loss) * (1 - decays)
    corrected = means / (1 - decays ** (iteration + 1))
    minima = np.minimum(minima, corrected)
    features = (corrected[:-1] - minima[:-1]) / np.maximum(1e-8, corrected[1:] - minima[:-1])
    features = np.clip(features - 1.0, -1.0, 1.0)
    return means, minima, np.zeros(9) if iteration + 1 <= 2 else features


def oracle(weights, tensors, gradients, losses, num_steps):
    tensors = [tensor.copy() for tensor in tensors]
    m = [[np.zeros_like(p) for _ in DECAYS] for p in tensors]
    rms = [np.zeros_like(p) for p in tensors]
    v = [[np.zeros_like(p) if p.ndim < 2 else (0.0, 0.0) for _ in DECAYS] for p in tensors]
    start = weights["lstm_init_state"]
    hidden, cell = (np.float32(start[n]).repeat(len(tensors), 0) for n in ("hidden", "cell"))
    decays = np.exp(-1.0 / np.logspace(1.0, np.log10(num_steps), 10))
    means, minima = np.zeros(10), np.full(10, 999999999999.0)
    taus = np.array([0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1])
    for t, (given, loss) in enumerate(zip(gradients, losses, strict=True)):
        means, minima, of_loss = loss_features(means, minima, decays, t, loss)
        row = np.concatenate([np.tanh((t / num_steps - taus) * 10), of_loss])
        rates, hidden, cell = schedule(weights, np.tile(row, [len(tensors), 1]), hidden, cell)
        for k, p in enumerate(tensors):
            g = np.clip(given[k], -1000.0, 1000.0)
            m[k] = [d * old + (1 - d) * g for d, old in zip(DECAYS, m[k], strict=True)]
            rms[k] = 0.999 * rms[k] + 0.001 * g * g
            v[k], *moments = second_moments(v[k], g)
            tensors[k] = p - rates[k] * network_step(weights, p, g, m[k], rms[k], moments)
    return tensors


@pytest.mark.parametrize("num_steps", [1, 6])
def test_it_agrees_with_a_slow_one(num_steps, path):
    """The tensors are a matrix, a vector, a scalar and one of three axes. Two have equal sizes."""
    rule = Celo(20, read_published(path), dtype="float64")
    rule.build(BLOCKS)
    generator = np.random.default_rng(1)
    tensors = [generator.normal(size=shape) for shape in SHAPES.values()]
    size = 10.0 ** generator.integers(-3, 5, num_steps)  # some are above the limit of 1,000
    gradients = [[s * generator.normal(size=p.shape) for p in tensors] for s in size]
    losses = [3.0, 2.0, 30.0, 1.5, 1.2, 1.3][:num_steps]
    expected = oracle(published(), tensors, gradients, losses, 20)

    def flat(parts):
        return np.concatenate([np.reshape(part, [-1]) for part in parts])

    theta = tf.constant(flat(tensors))
    state = rule.initial_state(theta)
    for given, loss in zip(gradients, losses, strict=True):
        theta, state = rule(tf.constant(flat(given)), tf.constant(loss, tf.float64), theta, state)
    np.testing.assert_allclose(theta, flat(expected), rtol=1e-9)
    assert np.abs(theta - flat(tensors)).min() > 1e-8


def test_a_keras_optimizer_has_the_published_weights(path):
    optimizer = LearnedOptimizer(Celo.load(path, 100), trained_steps=100)
    of_options = Celo.from_options(CeloOptions(str(path), 100))
    of_options.build(BLOCKS)
    copy = LearnedOptimizer.from_config(LearnedOptimizer(of_options).get_config())
    assert (copy.rule.num_steps, optimizer.rule.num_steps) == (100, 100)
    assert sum(int(tf.size(w)) for w in optimizer.rule.weights) == 35803
    for one, other in zip(optimizer.rule.weights, copy.rule.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def without(tree, name):
    del tree["rnn_params"][name]
    return packed(tree)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "holds no weights in the format of flax"),
        (b"\x80\x04\x95pickled", "holds no weights in the format of flax"),
        (msgpack.packb([1, 2]), "it is list, no array"),
        (msgpack.packb({"a": 1}), "a is int, no array"),
        (msgpack.packb(msgpack.ExtType(2, b"x")), "extension 2 is no array"),
        (msgpack.packb(msgpack.ExtType(1, msgpack.packb(([2], "object", b"")))), "is of object"),
        (msgpack.packb(msgpack.ExtType(1, msgpack.packb(([2], "float32", b"1")))), "has 1 bytes"),
        (msgpack.packb(without(published(), "step_size")), r"step_size/w is not there, not \(64"),
    ],
)
def test_other_files_are_refused_by_what_they_hold(contents, message, tmp_path):
    (tmp_path / "theta.state").write_bytes(contents)
    with pytest.raises(OptionError, match=f"celo_weights cannot be used: .*{message}"):
        Celo.load(tmp_path / "theta.state", 100)


def test_a_truncated_file_and_none_at_all(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OptionError, match=r"no weights in the format of flax \(.*whole"):
        Celo.load(path, 100)
    path.unlink()
    with pytest.raises(OptionError, match=r"cannot be read \(No such file"):
        Celo.load(path, 100)
