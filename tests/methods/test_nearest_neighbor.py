"""Tests nearest neighbour against NumPy, and its two ways of being called."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.episode import Support
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.metric import nearest
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor

SHAPE = (16, 16, 1)


def random_images(number, seed):
    return np.random.default_rng(seed).random((number, *SHAPE), np.float32)


def slow_answers(features, labels, queries, num_way):
    """Returns for each query and class the cosine with the nearest support image, one at a time."""
    answers = np.full([len(queries), num_way], -np.inf)
    for row, z in enumerate(queries):
        for x, label in zip(features, labels, strict=True):
            cosine = x @ z / np.sqrt((x @ x) * (z @ z))
            answers[row, label] = max(answers[row, label], cosine)
    return answers


def test_answers_are_cosines_with_the_nearest():
    method = NearestNeighbor(conv4(SHAPE, 7, 4))
    support, queries = random_images(5, 0), random_images(4, 1)
    labels = np.array([0, 2, 1, 0, 2])
    adapted = method.adapt(Support(tf.constant(support), tf.constant(labels)))
    found = method.query_outputs(adapted, tf.constant(queries))
    features, of_queries = (
        method.embedding(images, training=False).numpy().astype(np.float64)
        for images in (support, queries)
    )
    np.testing.assert_allclose(found, slow_answers(features, labels, of_queries, 3), atol=1e-6)


def test_pixels_by_hand():
    """(3, 4) and (4, 3) have the cosine 24 / 25; (3, 4) and (0, 2) have 8 / 10."""
    method = PixelNearestNeighbor()
    images = tf.constant([[4.0, 3.0], [0.0, 2.0]])[:, tf.newaxis, :, tf.newaxis]
    adapted = method.adapt(Support(images, tf.constant([1, 0])))
    query = tf.constant([[3.0, 4.0]])[:, tf.newaxis, :, tf.newaxis]
    np.testing.assert_allclose(method.query_outputs(adapted, query), [[0.8, 0.96]], rtol=1e-6)


def test_a_class_without_images_is_never_the_nearest():
    found = nearest(tf.constant([[-0.9, -0.8]]), tf.constant([0, 2]), num_way=3)
    assert np.argsort(found.numpy()[0]).tolist() == [1, 0, 2]


def test_in_training_it_classifies_into_all_classes_and_collects_statistics():
    method = NearestNeighbor(conv4(SHAPE, 7, 4, statistics_momentum=0.9))
    inputs = {
        "support_inputs": tf.zeros([2, 0, *SHAPE]),
        "support_labels": tf.zeros([2, 0], tf.int32),
        "query_inputs": tf.constant(random_images(6, 0).reshape(2, 3, *SHAPE)),
    }
    before = [v.numpy() for v in method.network.non_trainable_variables]
    logits = method(inputs, training=True)
    assert logits.shape == (2, 3, 7)
    expected = method.network(random_images(6, 0), training=True)
    np.testing.assert_allclose(tf.reshape(logits, [6, 7]), expected, rtol=1e-4, atol=1e-5)
    after = [v.numpy() for v in method.network.non_trainable_variables]
    assert all(np.abs(one - other).max() > 1e-4 for one, other in zip(before, after, strict=True))


def test_the_embedding_is_the_network_without_its_last_layer():
    network = conv4(SHAPE, 7, 4)
    features = embedding_of(network)(random_images(2, 0))
    assert features.shape == (2, 4)
    np.testing.assert_allclose(network.layers[-1](features), network(random_images(2, 0)))


@pytest.mark.parametrize("num_way", [2, 5, 9])
@pytest.mark.parametrize("in_pixels", [False, True])
def test_it_answers_for_any_number_of_classes(in_pixels, num_way):
    """An episode may have more classes than the training of the network had."""
    method = PixelNearestNeighbor() if in_pixels else NearestNeighbor(conv4(SHAPE, 4, 4))
    assert method.num_outputs is None
    inputs = {
        "support_inputs": random_images(num_way, 0)[np.newaxis],
        "support_labels": np.arange(num_way)[np.newaxis],
        "query_inputs": random_images(3, 1)[np.newaxis],
    }
    found = method(inputs, training=False)
    assert found.shape == (1, 3, num_way)
    order = np.random.default_rng(1).permutation(num_way)
    relabelled = method({**inputs, "support_labels": order[np.newaxis]}, training=False)
    np.testing.assert_array_equal(tf.gather(relabelled, order, axis=-1), found)


def test_pixels_have_nothing_to_train():
    method = PixelNearestNeighbor()
    assert method.weights == []
    assert not method.is_trained
    assert not method.keeps_statistics
    assert method.num_updates is None
    copy = PixelNearestNeighbor.from_config(method.get_config())
    assert copy.get_config() == method.get_config()
