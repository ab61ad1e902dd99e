"""Tests prototypical networks against NumPy in float64, batch norm, and any number of classes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.class_means import class_means
from tf_metalstm.episode import Support
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.methods.prototypical_networks import (
    DISTANCES,
    PrototypicalNetworks,
    negative_squared_distances,
)
from tf_metalstm.options import OptionError

SHAPE = (16, 16, 1)
LOWEST = np.finfo(np.float32).min


def random_images(number, seed):
    return np.random.default_rng(seed).random((number, *SHAPE), np.float32)


def embedding(momentum=0.9, dropout=0.0):
    return embedding_of(conv4(SHAPE, 3, 4, statistics_momentum=momentum, dropout=dropout))


def episode(labels, num_queries=4, seed=0):
    """Returns one episode with a leading E: support images of these labels, and queries."""
    images = random_images(len(labels) + num_queries, seed)[np.newaxis]
    return {
        "support_inputs": images[:, : len(labels)],
        "support_labels": np.array([labels]),
        "query_inputs": images[:, len(labels) :],
    }


def slow_logits(features, labels, queries, distance="euclidean", scale=1.0):
    """Returns -scale |f - c_k|^2 in float64, one query and one class at a time."""
    features, queries = (np.asarray(x, np.float64) for x in (features, queries))
    if distance == "cosine":
        features, queries = (unit(x) for x in (features, queries))
    answers = np.zeros([len(queries), max(labels) + 1])
    for k in range(answers.shape[1]):
        mean = np.mean([f for f, label in zip(features, labels, strict=True) if label == k], axis=0)
        if distance == "cosine":
            mean = unit(mean)
        for row, f in enumerate(queries):
            answers[row, k] = -scale * sum((f[i] - mean[i]) ** 2 for i in range(len(f)))
    return answers


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_means_and_distances_by_hand():
    """Class means are (1, 2), from (0, 2) and (2, 2), and (4, 0). The query is at (1, 0)."""
    features = tf.constant([[0.0, 2.0], [4.0, 0.0], [2.0, 2.0]], tf.float64)
    means = class_means(features, tf.constant([0, 1, 0]), 2)
    np.testing.assert_array_equal(means, [[1.0, 2.0], [4.0, 0.0]])
    query = tf.constant([[1.0, 0.0]], tf.float64)
    np.testing.assert_allclose(negative_squared_distances(query, means), [[-4.0, -9.0]])


def test_a_class_without_features_has_a_mean_of_zeros():
    features = tf.constant([[1.0, 2.0], [3.0, 4.0]], tf.float64)
    means = class_means(features, tf.constant([2, 2], tf.int64), 4)
    np.testing.assert_array_equal(means, [[0, 0], [0, 0], [2, 3], [0, 0]])


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_agrees_with_the_oracle(distance, scale):
    """The classes have different numbers of images, in mixed order."""
    labels = [2, 0, 1, 0, 2, 2, 0]
    inputs = episode(labels)
    method = PrototypicalNetworks(embedding(), 3, distance, scale)
    features, queries = (
        method.embedding(inputs[name][0], training=False)
        for name in ("support_inputs", "query_inputs")
    )
    found = method(inputs, training=False)[0]
    expected = slow_logits(features, labels, queries, distance, scale)
    assert np.ptp(expected, axis=1).min() > 1e-4  # else the test would not depend on the classes
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_features_of_length_one_make_the_distance_a_cosine():
    """|u - v|^2 = 2 - 2 cos(u, v) for u and v of length 1."""
    inputs = episode([0, 1, 2, 0, 1, 2])
    method = PrototypicalNetworks(embedding(), 3, "cosine")
    f, q = (
        unit(method.embedding(inputs[name][0], training=False).numpy().astype(np.float64))
        for name in ("support_inputs", "query_inputs")
    )
    means = unit(np.stack([f[k::3].mean(axis=0) for k in range(3)]))
    expected = 2.0 * q @ means.T - 2.0
    np.testing.assert_allclose(method(inputs, training=False)[0], expected, rtol=1e-3, atol=1e-5)


def test_it_is_a_linear_layer_on_the_features():
    """Section 2.4: weights 2 c_k and biases -|c_k|^2, up to a number that all classes share."""
    generator = np.random.default_rng(0)
    features, queries = generator.normal(size=(9, 6)), generator.normal(size=(5, 6))
    means = class_means(tf.constant(features), tf.constant([0, 1, 2] * 3), 3)
    found = negative_squared_distances(tf.constant(queries), means).numpy()
    weights, biases = 2.0 * means.numpy().T, -np.sum(means.numpy() ** 2, axis=1)
    of_layer = queries @ weights + biases
    difference = found - of_layer
    np.testing.assert_allclose(difference, difference[:, :1] * np.ones(3), rtol=1e-10)
    np.testing.assert_allclose(difference[:, 0], -np.sum(queries**2, axis=1), rtol=1e-10)
    np.testing.assert_allclose(tf.nn.softmax(found), tf.nn.softmax(of_layer), rtol=1e-10)


def test_training_is_one_pass_for_support_and_queries():
    """Support and queries go through batch norm together, in training."""
    labels = [0, 1, 2, 0, 1, 2]
    inputs = episode(labels)
    method = PrototypicalNetworks(embedding(), 3)
    alike = PrototypicalNetworks(embedding(), 3)
    alike.set_weights(method.get_weights())
    before = [v.numpy().copy() for v in method.non_trainable_weights]
    assert len(before) == 8
    found = method(inputs, training=True)[0]
    images = np.concatenate([inputs["support_inputs"][0], inputs["query_inputs"][0]])
    features = alike.embedding(images, training=True).numpy()
    expected = slow_logits(features[:6], labels, features[6:])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    for old, one, other in zip(
        before, method.non_trainable_weights, alike.non_trainable_weights, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
        assert np.abs(one.numpy() - old).max() > 1e-4, one.path
    apart = [
        alike.embedding(inputs[name][0], training=True).numpy()
        for name in ("support_inputs", "query_inputs")
    ]
    assert np.abs(slow_logits(apart[0], labels, apart[1]) - found).max() > 1e-3


def test_outside_of_training_nothing_is_collected_and_queries_do_not_see_each_other():
    inputs = episode([0, 1, 2, 0, 1, 2])
    method = PrototypicalNetworks(embedding(dropout=0.5), 3)
    before = [v.numpy().copy() for v in method.weights]
    first = method(inputs, training=False)
    changed = {**inputs, "query_inputs": inputs["query_inputs"].copy()}
    changed["query_inputs"][:, 1:] = random_images(3, 9)
    again = method(changed, training=False)
    np.testing.assert_allclose(first[:, 0], again[:, 0], rtol=1e-4, atol=1e-6)
    assert np.abs(first[:, 1:] - again[:, 1:]).max() > 1e-4
    for one, other in zip(before, method.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("num_way", [1, 2, 5, 9])
def test_it_answers_for_any_number_of_classes(num_way):
    """The number of classes need not be that of the training."""
    method = PrototypicalNetworks(embedding(), training_way=3)
    assert method.num_outputs is None
    labels = list(range(num_way)) * 2
    inputs = episode(labels)
    found = method(inputs, training=False)
    assert found.shape == (1, 4, num_way)
    features, queries = (
        method.embedding(inputs[name][0], training=False)
        for name in ("support_inputs", "query_inputs")
    )
    expected = slow_logits(features, labels, queries)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("distance", DISTANCES)
def test_permuting_the_classes_permutes_the_columns_exactly(distance):
    method = PrototypicalNetworks(embedding(), 4, distance)
    assert method.is_symmetric
    inputs = episode([0, 1, 2, 3, 2, 0, 3, 1])
    order = np.array([2, 0, 3, 1])
    relabelled = {**inputs, "support_labels": order[inputs["support_labels"]]}
    for training in (False, True):
        straight, permuted = (method(x, training=training) for x in (inputs, relabelled))
        np.testing.assert_array_equal(tf.gather(permuted, order, axis=-1), straight)


def test_a_class_without_support_images_is_no_answer_and_changes_no_other():
    method = PrototypicalNetworks(embedding(), 3)
    with_gap, without = episode([0, 2, 0, 2]), episode([0, 1, 0, 1])
    found, expected = (method(x, training=False)[0].numpy() for x in (with_gap, without))
    assert found.shape == (4, 3)
    assert np.all(found[:, 1] == LOWEST)
    np.testing.assert_array_equal(found[:, [0, 2]], expected)
    probabilities = tf.nn.softmax(found).numpy()
    assert np.isfinite(probabilities).all()
    assert np.all(probabilities[:, 1] == 0.0)


@pytest.mark.parametrize("distance", DISTANCES)
def test_adapting_and_asking_is_calling(distance):
    """The two exported functions together give what a call of the method gives."""
    method = PrototypicalNetworks(embedding(), 3, distance, 3.0)
    inputs = episode([0, 1, 2, 0, 1, 2])
    support = Support(*(tf.constant(inputs[f"support_{x}"][0]) for x in ("inputs", "labels")))
    adapted = method.adapt(support)
    assert adapted.means.shape == (3, 4)
    answers = method.query_outputs(adapted, tf.constant(inputs["query_inputs"][0]))
    np.testing.assert_allclose(answers, method(inputs, training=False)[0], rtol=1e-6)


def test_it_begins_at_the_network_of_a_joint_training():
    trained, method = NearestNeighbor(conv4(SHAPE, 12, 4)), PrototypicalNetworks(embedding(), 3)
    for weight in trained.weights:
        weight.assign(np.random.default_rng(1).random(weight.shape))
    method.begin(trained)
    learned = {weight.path: weight for weight in trained.weights}
    assert len(method.weights) == len(trained.weights) - 2  # without the linear layer
    for weight in method.weights:
        np.testing.assert_array_equal(weight, learned[weight.path])


def test_survives_its_config():
    method = PrototypicalNetworks(embedding(), 3, "cosine", 4.0)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(method))
    copy.set_weights(method.get_weights())
    assert copy.get_config() == method.get_config()
    inputs = episode([0, 1, 2])
    np.testing.assert_array_equal(copy(inputs), method(inputs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": "manhattan"}, r"^distance must be one of euclidean, cosine, got 'manhattan'"),
        ({"distance_scale": 0.0}, r"^distance_scale must be a number above 0, got 0"),
    ],
)
def test_what_it_does_not_know_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        PrototypicalNetworks(embedding(), 3, **options)
