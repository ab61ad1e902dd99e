"""Tests memory-augmented networks against NumPy in float64, one stream, head and slot at a time."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.methods.memory_augmented import (
    Heads,
    MemoryAugmentedNetwork,
    access,
    empty_memory,
    least_used,
)
from tf_metalstm.options import OptionError

SLOTS, WIDTH, HEADS = 5, 3, 2
DECAY = 0.9


def network(dtype="float64", lstm_alone=False):
    toy.seed(0)
    return MemoryAugmentedNetwork(4, 3, 6, lstm_alone, SLOTS, WIDTH, HEADS, DECAY, dtype=dtype)


def streams(number=2, length=7, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, (number, length))
    previous = np.concatenate([np.full([number, 1], -1), labels[:, :-1]], axis=1)
    return {"images": generator.normal(size=(number, length, 2, 2)), "previous_labels": previous}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def slow_access(memory, read, usage, keys, values, gates):
    """Reads and writes for one stream. memory [slots, width], read [heads, slots], usage [slots]"""
    free = np.argsort(usage, kind="stable")[:HEADS]
    written = np.zeros_like(read)
    for j in range(HEADS):
        for i in range(SLOTS):
            written[j, i] = gates[j] * read[j, i] + (1 - gates[j]) * (i in free)
    memory = memory.copy()
    memory[free[0]] = 0.0
    for j in range(HEADS):
        for i in range(SLOTS):
            memory[i] += written[j, i] * values[j]
    read = np.zeros_like(read)
    for j in range(HEADS):
        lengths = np.linalg.norm(memory, axis=1) * np.linalg.norm(keys[j])
        cosines = np.array([memory[i] @ keys[j] / max(lengths[i], 1e-30) for i in range(SLOTS)])
        read[j] = np.exp(cosines) / np.exp(cosines).sum()
    found = np.concatenate([read[j] @ memory for j in range(HEADS)])
    return memory, read, DECAY * usage + (read + written).sum(axis=0), found


def slow_logits(method, images, previous):
    """Returns the logits of one stream in float64."""
    known = {"/".join(w.path.split("/")[-2:]): w.numpy().astype(np.float64) for w in method.weights}

    def layer(name, x):
        return x @ known[f"{name}/kernel"] + known[f"{name}/bias"]

    kernel, recurrent, bias = (
        known[f"controller/{name}"] for name in ("kernel", "recurrent_kernel", "bias")
    )
    memory, found = np.full([SLOTS, WIDTH], 1e-6), np.zeros(HEADS * WIDTH)
    read, usage = np.zeros([HEADS, SLOTS]), np.zeros(SLOTS)
    read[:, 0] = usage[0] = 1.0
    hidden, cell, logits = np.zeros(6), np.zeros(6), []
    for image, label in zip(images, previous, strict=True):
        seen = np.concatenate([image.ravel(), np.eye(3)[label] * (label >= 0)])
        if not method.options.lstm_alone:
            seen = np.concatenate([seen, found])
        i, f, c, o = np.split(seen @ kernel + hidden @ recurrent + bias, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(c)
        hidden = sigmoid(o) * np.tanh(cell)
        if method.options.lstm_alone:
            logits.append(layer("answer", hidden))
            continue
        keys, values = (
            np.tanh(layer(name, hidden)).reshape(HEADS, WIDTH) for name in ("keys", "values")
        )
        gates = sigmoid(layer("gates", hidden))
        memory, read, usage, found = slow_access(memory, read, usage, keys, values, gates)
        logits.append(layer("answer", np.concatenate([hidden, found])))
    return np.array(logits)


@pytest.mark.parametrize("lstm_alone", [False, True])
def test_agrees_with_the_oracle(lstm_alone):
    method, inputs = network(lstm_alone=lstm_alone), streams()
    for index, weight in enumerate(method.weights):  # biases become nonzero too
        noise = np.random.default_rng(index).normal(0.0, 0.7, weight.shape)
        weight.assign(noise)
    expected = [
        slow_logits(method, images, previous)
        for images, previous in zip(inputs["images"], inputs["previous_labels"], strict=True)
    ]
    assert np.ptp(expected, axis=1).min() > 0.1
    np.testing.assert_allclose(method(inputs), expected, rtol=1e-6, atol=1e-6)


def test_the_least_used_slots_and_the_first_of_them():
    free, least = least_used(tf.constant([[0.3, 0.1, 0.2, 0.9]]), 2)
    np.testing.assert_array_equal(free, [[0, 1, 1, 0]])
    np.testing.assert_array_equal(least, [[0, 1, 0, 0]])


def test_a_shut_gate_writes_to_all_little_used_slots_and_the_least_used_is_cleared():
    """By hand: slot 0 was used last; slots 1 and 2 are free and take the sum of both values."""
    state = empty_memory(1, SLOTS, WIDTH, HEADS, tf.float64)
    old = tf.ones_like(state.memory)
    values = tf.constant([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]], tf.float64)
    heads = Heads(values, values, tf.zeros([1, HEADS], tf.float64))
    memory = access(state._replace(memory=old), heads, DECAY)[0].memory[0]
    np.testing.assert_allclose(memory, [[1, 1, 1], [5, 7, 9], [6, 8, 10], [1, 1, 1], [1, 1, 1]])
    # An open gate adds to slot 0, which was read. The least used slot is cleared all the same.
    heads = heads._replace(gates=tf.ones([1, HEADS], tf.float64))
    memory = access(state._replace(memory=old), heads, DECAY)[0].memory[0]
    np.testing.assert_allclose(memory, [[6, 8, 10], [0, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]])


def test_a_label_is_told_one_step_later():
    """The output of a step depends neither on its own label nor on later steps."""
    method, inputs = network(), streams(number=1)
    before = method(inputs).numpy()
    changed = {name: value.copy() for name, value in inputs.items()}
    changed["previous_labels"][0, 4] = (changed["previous_labels"][0, 4] + 1) % 3
    changed["images"][0, 5] += 1.0
    after = method(changed).numpy()
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert np.abs(after[:, 4] - before[:, 4]).max() > 1e-6


def test_streams_share_no_memory():
    method, inputs = network(), streams(number=3)
    for i in range(3):
        alone = method({name: value[i : i + 1] for name, value in inputs.items()})
        np.testing.assert_allclose(alone[0], method(inputs)[i], rtol=1e-9)


def test_more_heads_than_slots_are_refused():
    with pytest.raises(OptionError, match=r"^memory_heads is 4 but the memory has 3 slots"):
        MemoryAugmentedNetwork(4, 3, memory_slots=3)
