"""Tests relation networks against NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.embedding import maps_of
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.methods.relation_networks import RelationNetworks, class_maps, relation_module

SHAPE = (16, 16, 1)
LABELS = [2, 0, 1, 0, 2, 2, 0]


def network(halvings=2):
    return conv4(SHAPE, 3, 4, statistics_momentum=0.9, halvings=halvings)


def episode(num_queries=3):
    images = toy.noise(1, len(LABELS) + num_queries, *SHAPE)
    return {
        "support_inputs": images[:, : len(LABELS)],
        "support_labels": tf.constant([LABELS]),
        "query_inputs": images[:, len(LABELS) :],
    }


def lively(method):
    """Gives the network running statistics and biases that are not the initial ones."""
    for index, weight in enumerate(method.relation.weights):
        noise = np.random.default_rng(index).uniform(0.1, 0.6, weight.shape)
        weight.assign(weight + noise)
    return method


def convolved(x, kernel, bias):
    """A 3 x 3 convolution [h, w, c] -> [h, w, d], one place at a time."""
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    height, width, _ = x.shape
    return np.array(
        [
            [
                np.tensordot(padded[i : i + 3, j : j + 3], kernel, [[0, 1, 2], [0, 1, 2]]) + bias
                for j in range(width)
            ]
            for i in range(height)
        ]
    )


def slow_relation(pair, relation):
    """Returns g of one pair [h, w, 2 C] in float64."""
    known = {weight.path: weight.numpy().astype(np.float64) for weight in relation.weights}
    x = pair
    for i in (1, 2):
        x = convolved(x, known[f"relation_conv_{i}/kernel"], known[f"relation_conv_{i}/bias"])
        norm = {n: known[f"relation_norm_{i}/{n}"] for n in ("gamma", "beta")}
        mean = known[f"relation_norm_{i}/moving_mean"]
        variance = known[f"relation_norm_{i}/moving_variance"]
        x = norm["gamma"] * (x - mean) / np.sqrt(variance + 1e-3) + norm["beta"]
        x = np.maximum(x, 0)
        height, width, channels = x.shape
        x = x.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
    x = np.maximum(x.ravel() @ known["relation_dense/kernel"] + known["relation_dense/bias"], 0)
    return (x @ known["relation_score/kernel"] + known["relation_score/bias"])[0]


def slow_scores(maps, queries, relation):
    maps, queries = (np.asarray(x, np.float64) for x in (maps, queries))
    sums = [sum(m for m, one in zip(maps, LABELS, strict=True) if one == k) for k in range(3)]
    pairs = [[np.concatenate([s, q], axis=-1) for s in sums] for q in queries]
    return np.array([[slow_relation(pair, relation) for pair in row] for row in pairs])


def test_agrees_with_the_oracle():
    method = lively(RelationNetworks(maps_of(network())))
    inputs = episode()
    maps, queries = (
        method.embedding(inputs[name][0]) for name in ("support_inputs", "query_inputs")
    )
    assert maps.shape == (7, 4, 4, 4)
    expected = slow_scores(maps, queries, method.relation)
    assert np.ptp(expected, axis=1).min() > 1e-2
    np.testing.assert_allclose(method(inputs)[0], expected, rtol=1e-4, atol=1e-4)


def test_maps_of_a_class_are_added_up():
    maps = tf.constant([1.0, 2.0, 4.0])[:, tf.newaxis, tf.newaxis, tf.newaxis] * tf.ones(
        [3, 2, 2, 5]
    )
    found = class_maps(maps, tf.constant([1, 3, 1]), 4)
    np.testing.assert_array_equal(found[:, 0, 0, 0], [0, 5, 0, 2])
    assert found.shape == (4, 2, 2, 5)


def test_the_loss_is_the_squared_error_of_the_relations():
    method = RelationNetworks(maps_of(network()))
    outputs = np.log([[[3.0, 1.0, 1 / 3]]])  # relations of 3/4, 1/2 and 1/4
    loss = method.training_loss(tf.constant([[0]]), tf.constant(outputs))
    np.testing.assert_allclose(loss, (1 / 16 + 1 / 4 + 1 / 16) / 3)


def test_training_answers_for_all_pairs_at_once():
    """Batch norm sees all pairs of the episode, and its running statistics move."""
    method = RelationNetworks(maps_of(network()), training_way=3)
    before = method.relation.get_layer("relation_norm_1").moving_mean.numpy().copy()
    assert method(episode(), training=True).shape == (1, 3, 3)
    assert np.abs(method.relation.get_layer("relation_norm_1").moving_mean - before).max() > 0


@pytest.mark.parametrize("size", [1, 5, 7])
def test_the_module_takes_maps_of_any_size(size):
    relation = relation_module((size, size, 3), 3, 8)
    assert relation(tf.zeros([2, size, size, 6])).shape == (2, 1)


@pytest.mark.parametrize(("halvings", "size"), [(0, 16), (1, 8), (2, 4), (4, 1)])
def test_halvings_are_those_of_the_first_blocks(halvings, size):
    for downsampling in ("max_pool", "stride"):
        made = conv4(SHAPE, 3, 4, halvings=halvings, downsampling=downsampling)
        assert maps_of(made).output_shape == (None, size, size, 4)


def test_begins_at_the_network_of_a_joint_training():
    joint = NearestNeighbor(network())
    method = RelationNetworks(maps_of(network()))
    method.begin(joint)
    np.testing.assert_array_equal(method.embedding.weights[0], joint.network.weights[0])


def test_a_network_without_maps_is_refused():
    with pytest.raises(
        ValueError, match=r"maps, but the network mlp has none .* use learner=conv4"
    ):
        maps_of(mlp((6,), 3, (4,)))
