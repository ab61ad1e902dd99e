"""Tests siamese networks against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.methods.siamese_networks import (
    SiameseNetworks,
    balanced_cross_entropy,
    mean_scores,
)

SHAPE = (16, 16, 1)
LABELS = [2, 0, 1, 0, 2, 2, 0]


def network():
    return conv4(SHAPE, 3, 4, statistics_momentum=0.9)


def episode(labels=LABELS, num_queries=4):
    images = toy.noise(1, len(labels) + num_queries, *SHAPE)
    return {
        "support_inputs": images[:, : len(labels)],
        "support_labels": tf.constant([labels]),
        "query_inputs": images[:, len(labels) :],
    }


def with_weights(method):
    """Sets a bias and weights of both signs. They are large, because the differences are small."""
    weights = np.random.default_rng(0).normal(0.0, 100.0, size=method.distance.shape)
    method.distance.assign(weights)
    method.bias.assign(0.7)
    return method


def slow_scores(features, labels, queries, weights, bias):
    """Returns scores in float64, one pair at a time."""
    features, queries, weights = (np.asarray(x, np.float64) for x in (features, queries, weights))
    answers = np.zeros([len(queries), max(labels) + 1])
    for row, query in enumerate(queries):
        for k in range(answers.shape[1]):
            of_class = [f for f, label in zip(features, labels, strict=True) if label == k]
            pairs = [bias + sum(weights * abs(query - f)) for f in of_class]
            answers[row, k] = sum(pairs) / len(pairs)
    return answers


def test_agrees_with_the_oracle():
    method = with_weights(SiameseNetworks(embedding_of(network())))
    inputs = episode()
    features, queries = (
        method.embedding(inputs[name][0]) for name in ("support_inputs", "query_inputs")
    )
    expected = slow_scores(features, LABELS, queries, method.distance.numpy(), 0.7)
    assert np.ptp(expected, axis=1).min() > 0.1
    np.testing.assert_allclose(method(inputs)[0], expected, rtol=1e-4, atol=1e-4)


def test_mean_scores_by_hand():
    scores = tf.constant([[1.0, 2.0, 3.0, 6.0]])
    np.testing.assert_allclose(mean_scores(scores, tf.constant([0, 3, 0, 3]), 5), [[2, 0, 0, 4, 0]])


@pytest.mark.parametrize("num_way", [2, 5])
def test_the_pair_of_the_same_class_counts_as_much_as_all_others(num_way):
    generator = np.random.default_rng(num_way)
    scores, labels = generator.normal(size=(2, 3, num_way)), generator.integers(0, num_way, (2, 3))
    losses = []
    for row, label in zip(scores.reshape(-1, num_way), labels.ravel(), strict=True):
        same = 1 / (1 + np.exp(-row))
        different = [-np.log(1 - same[k]) for k in range(num_way) if k != label]
        losses.append((-np.log(same[label]) + np.mean(different)) / 2)
    found = balanced_cross_entropy(tf.constant(labels), tf.constant(scores))
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-12)


def test_scores_that_say_nothing_cost_log_2():
    loss = balanced_cross_entropy(tf.constant([0, 4]), tf.zeros([2, 5], tf.float64))
    np.testing.assert_allclose(loss, np.log(2))


def test_a_fresh_one_answers_with_the_nearest_image():
    method = SiameseNetworks(embedding_of(network()))
    inputs = episode([0, 1, 2])
    inputs["query_inputs"] = inputs["support_inputs"][:, ::-1]
    np.testing.assert_array_equal(np.argmax(method(inputs)[0], axis=-1), [2, 1, 0])


def test_training_is_one_pass_and_knows_its_way():
    method = with_weights(SiameseNetworks(embedding_of(network()), training_way=3))
    inputs = episode()
    images = tf.concat([inputs["support_inputs"][0], inputs["query_inputs"][0]], axis=0)
    twin = keras.models.clone_model(method.embedding)
    twin.set_weights(method.embedding.get_weights())
    features = twin(images, training=True)
    expected = slow_scores(features[:7], LABELS, features[7:], method.distance.numpy(), 0.7)
    outputs = method(inputs, training=True)
    assert outputs.shape == (1, 4, 3)
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-3, atol=1e-3)


def test_begins_at_the_network_of_a_joint_training_or_at_another_of_its_kind():
    joint, trained = (
        NearestNeighbor(network()),
        with_weights(SiameseNetworks(embedding_of(network()))),
    )
    method = SiameseNetworks(embedding_of(network()))
    method.begin(joint)
    np.testing.assert_array_equal(method.embedding.weights[0], joint.network.weights[0])
    np.testing.assert_allclose(method.distance, -1 / method.distance.shape[0])
    method.begin(trained)
    for one, other in zip(method.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(one, other)
