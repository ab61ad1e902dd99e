"""Tests matching networks against NumPy in float64, one query and one support image at a time."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.matching_networks import (
    MatchingNetworks,
    QueryContext,
    SupportContext,
    votes,
)
from tf_metalstm.options import OptionError

D = 3


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def lstm_step(weights, x, hidden, cell):
    """One step of an LSTM. Keras orders its gates input, forget, candidate, output."""
    kernel, recurrent, bias = weights
    i, f, g, o = np.split(x @ kernel + hidden @ recurrent + bias, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def lively(layer):
    """Gives a layer large random weights and biases."""
    layer.set_weights([numbers(i, *w.shape) for i, w in enumerate(layer.get_weights())])
    return layer


def built(layer):
    layer.build((None, D))
    return layer


@pytest.mark.parametrize("similarity", ["softmax", "sum"])
def test_votes(similarity):
    cosines, labels = numbers(0, 4, 5), [0, 2, 2, 1, 0]
    found = votes(tf.constant(cosines), tf.constant(labels), 4, similarity).numpy()
    for row, of_query in zip(found, cosines, strict=True):
        expected = np.zeros(4)
        for weight, label in zip(
            softmax(of_query) if similarity == "softmax" else of_query, labels, strict=True
        ):
            expected[label] += weight
        if similarity == "softmax":  # the logit of a class without images is finite
            np.testing.assert_allclose(np.exp(row), expected, rtol=1e-12, atol=1e-29)
            assert np.isfinite(row).all()
        else:
            np.testing.assert_allclose(row, expected, rtol=1e-12)


def test_the_support_set_is_read_both_ways():
    layer = lively(built(SupportContext(dtype="float64")))
    features = numbers(7, 4, D)
    found = layer(tf.constant(features))
    weights = [lstm.get_weights() for lstm in (layer.forward, layer.backward)]
    outputs = []
    for of_lstm, order in zip(weights, (range(4), reversed(range(4))), strict=True):
        hidden = cell = np.zeros(D)
        outputs.append(np.zeros([4, D]))
        for i in order:
            hidden, cell = lstm_step(of_lstm, features[i], hidden, cell)
            outputs[-1][i] = hidden
    np.testing.assert_allclose(found, outputs[0] + outputs[1] + features, rtol=1e-10)


@pytest.mark.parametrize("attention_steps", [1, 3])
def test_a_query_attends_to_the_support_set(attention_steps):
    layer = lively(built(QueryContext(attention_steps, dtype="float64")))
    queries, support = numbers(1, 2, D), numbers(2, 4, D)
    found = layer(tf.constant(queries), tf.constant(support))
    for row, query in zip(found, queries, strict=True):
        hidden, cell = query, np.zeros(D)
        for _ in range(attention_steps):
            read = softmax(support @ hidden) @ support
            out, cell = lstm_step(
                layer.cell.get_weights(), np.concatenate([query, read]), hidden, cell
            )
            hidden = out + query
        np.testing.assert_allclose(row, hidden, rtol=1e-10)


def test_the_order_of_the_support_images_counts_for_g_alone():
    queries, support = (tf.constant(numbers(i, 4, D)) for i in (1, 2))
    order = [2, 0, 3, 1]
    shuffled = tf.gather(support, order)
    attends = lively(built(QueryContext(dtype="float64")))
    np.testing.assert_allclose(attends(queries, support), attends(queries, shuffled), rtol=1e-10)
    reads = lively(built(SupportContext(dtype="float64")))
    assert np.abs(tf.gather(reads(support), order) - reads(shuffled)).max() > 1e-3


def test_training_uses_dropout_and_collects_statistics_and_asking_does_neither():
    method = MatchingNetworks(embedding_of(conv4((16, 16, 1), 3, 4, dropout=0.5)), 3)
    generator = np.random.default_rng(0)
    inputs = {
        "support_inputs": generator.random((1, 6, 16, 16, 1), np.float32),
        "support_labels": np.array([[0, 1, 2, 0, 1, 2]]),
        "query_inputs": generator.random((1, 4, 16, 16, 1), np.float32),
    }
    moving = [v for v in method.embedding.non_trainable_variables if "moving" in v.path]
    assert len(moving) == 8
    for training in (False, True):
        before = [variable.numpy() for variable in moving]
        once, again = (method(inputs, training=training).numpy() for _ in range(2))
        assert (np.abs(once - again).max() > 1e-3) == training
        for one, other in zip(before, moving, strict=True):
            assert (np.abs(one - other).max() > 1e-4) == training, other.path


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_without_context_the_answer_is_the_vote_of_the_cosines(scale):
    toy.seed(0)
    method = MatchingNetworks(embedding_of(conv4((16, 16, 1), 3, 4)), 3, cosine_scale=scale)
    generator = np.random.default_rng(0)
    inputs = {
        "support_inputs": generator.random((1, 6, 16, 16, 1), np.float32),
        "support_labels": np.array([[0, 1, 2, 0, 1, 2]]),
        "query_inputs": generator.random((1, 4, 16, 16, 1), np.float32),
    }
    found = method(inputs, training=False)[0]
    g, f = (
        method.embedding(inputs[name][0], training=False).numpy().astype(np.float64)
        for name in ("support_inputs", "query_inputs")
    )
    g, f = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (g, f))
    for row, cosines in zip(found, f @ g.T, strict=True):
        attention = softmax(scale * cosines)
        expected = [attention[inputs["support_labels"][0] == n].sum() for n in range(3)]
        np.testing.assert_allclose(np.exp(row), expected, rtol=1e-5)


def test_dropout_only_in_training():
    method = MatchingNetworks(embedding_of(conv4((16, 16, 1), 3, 4, dropout=0.5)), 3)
    images = np.random.default_rng(0).random((4, 16, 16, 1), np.float32)
    once, again = (method.embedding(images, training=False) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    once, again = (method.embedding(images, training=True) for _ in range(2))
    assert np.abs(once - again).max() > 1e-3


def test_what_it_does_not_know_is_refused():
    embedding = embedding_of(conv4((16, 16, 1), 3, 4))
    with pytest.raises(OptionError, match=r"^similarity must be one of softmax, sum, got 'dot'"):
        MatchingNetworks(embedding, 3, similarity="dot")
    with pytest.raises(OptionError, match=r"^attention_steps must be .* at least 1, got 0"):
        MatchingNetworks(embedding, 3, full_context=True, attention_steps=0)
    with pytest.raises(OptionError, match=r"^cosine_scale must be a number above 0, got 0"):
        MatchingNetworks(embedding, 3, cosine_scale=0.0)


@pytest.mark.parametrize("num_way", [2, 3, 7])
@pytest.mark.parametrize("full_context", [False, True])
def test_it_answers_for_any_number_of_classes(num_way, full_context):
    """The number of classes need not be that of the training, and their order does not matter."""
    method = MatchingNetworks(
        embedding_of(conv4((16, 16, 1), 3, 4)), 3, full_context=full_context, similarity="sum"
    )
    images = np.random.default_rng(0).random((num_way + 4, 16, 16, 1), np.float32)
    inputs = {
        "support_inputs": images[np.newaxis, :num_way],
        "support_labels": np.arange(num_way)[np.newaxis],
        "query_inputs": images[np.newaxis, num_way:],
    }
    found = method(inputs, training=False)
    assert found.shape == (1, 4, num_way)
    order = np.random.default_rng(1).permutation(num_way)
    relabelled = method({**inputs, "support_labels": order[np.newaxis]}, training=False)
    np.testing.assert_array_equal(tf.gather(relabelled, order, axis=-1), found)


def test_a_class_without_support_images_is_no_answer():
    method = MatchingNetworks(embedding_of(conv4((16, 16, 1), 3, 4)), 3, similarity="sum")
    images = np.random.default_rng(0).random((1, 4, 16, 16, 1), np.float32)
    inputs = {
        "support_inputs": images,
        "support_labels": np.array([[0, 2, 0, 2]]),
        "query_inputs": images,
    }
    found = method(inputs, training=False)[0].numpy()
    assert found.shape == (4, 3)
    assert np.all(found[:, 1] == np.finfo(np.float32).min)
    assert np.all(np.abs(found[:, [0, 2]]) <= 2.001)
