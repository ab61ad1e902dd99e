"""Nearest neighbour against NumPy; what its two ways of being called do; c_0 from its network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.construction import scale_kernels, start_c_0
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.episode import Support
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor, nearest
from tf_metalstm.training.outer_loop import compile_method

SHAPE = (16, 16, 1)


def random_images(number, seed):
    return np.random.default_rng(seed).random((number, *SHAPE), np.float32)


def slow_answers(features, labels, queries, num_way):
    """Of each query and class the cosine with the nearest support image, one at a time."""
    answers = np.full([len(queries), num_way], -np.inf)
    for row, z in enumerate(queries):
        for x, label in zip(features, labels, strict=True):
            cosine = x @ z / np.sqrt((x @ x) * (z @ z))
            answers[row, label] = max(answers[row, label], cosine)
    return answers


def test_answers_are_cosines_with_the_nearest():
    method = NearestNeighbor(conv4(SHAPE, 7, 4), 3)
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
    """(3, 4) and (4, 3) have the cosine 24 / 25, (3, 4) and (0, 2) 8 / 10."""
    method = NearestNeighbor(None, 2)
    images = tf.constant([[4.0, 3.0], [0.0, 2.0]])[:, tf.newaxis, :, tf.newaxis]
    adapted = method.adapt(Support(images, tf.constant([1, 0])))
    query = tf.constant([[3.0, 4.0]])[:, tf.newaxis, :, tf.newaxis]
    np.testing.assert_allclose(method.query_outputs(adapted, query), [[0.8, 0.96]], rtol=1e-6)


def test_a_class_without_images_is_never_the_nearest():
    found = nearest(tf.constant([[-0.9, -0.8]]), tf.constant([0, 2]), num_way=3)
    assert np.argsort(found.numpy()[0]).tolist() == [1, 0, 2]


def test_in_training_it_classifies_into_all_classes_and_collects_statistics():
    method = NearestNeighbor(conv4(SHAPE, 7, 4, statistics_momentum=0.9), 3)
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


def test_c_0_starts_at_the_trained_network_but_for_the_linear_layer():
    pretrained = NearestNeighbor(conv4((16, 16, 1), 12, 4), 5)
    for variable in pretrained.network.trainable_variables:
        variable.assign(np.random.default_rng(1).random(variable.shape))
    method = toy.conv_method()
    fresh = method.c_0.numpy().copy()
    start_c_0(method, pretrained)
    learned = {v.path: v.numpy().ravel() for v in pretrained.network.trainable_variables}
    for block in method.learner.parameter_blocks:
        part = slice(block.start, block.start + block.size)
        linear = block.name.startswith("linear")
        np.testing.assert_array_equal(
            method.c_0[part], fresh[part] if linear else learned[block.name]
        )


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            conv4((16, 16, 1), 12, 8),
            r"shape \(3, 3, 1, 8\) for conv_1/kernel, which is \(3, 3, 1, 4\)",
        ),
        (None, "one of the two compares pixels"),
    ],
)
def test_networks_that_differ_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        start_c_0(toy.conv_method(), NearestNeighbor(network, 5))


def test_scaled_kernels_compute_the_same_and_an_update_turns_them_by_less():
    plain, scaled = toy.conv_method(), toy.conv_method()
    scaled.c_0.assign(plain.c_0)
    scale_kernels(scaled, 4.0)
    images = np.random.default_rng(0).normal(size=(10, 16, 16, 1)).astype(np.float32)
    gradients = []
    for method in (plain, scaled):
        theta = tf.convert_to_tensor(method.c_0)
        with tf.GradientTape() as tape:
            tape.watch(theta)
            logits, _ = method.learner.apply(
                theta, method.learner.initial_statistics(), images, training=True
            )
            loss = tf.reduce_mean(tf.square(logits))
        gradients.append((logits, tape.gradient(loss, theta).numpy()))
    # Not to the last digit: batch norm adds its epsilon to the variance.
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], rtol=0.1, atol=0.02)
    for block in plain.learner.parameter_blocks:
        part = slice(block.start, block.start + block.size)
        is_kernel = block.name.startswith("conv") and block.name.endswith("kernel")
        factor = 4.0 if is_kernel else 1.0
        np.testing.assert_array_equal(scaled.c_0[part], factor * plain.c_0.numpy()[part])
        if is_kernel:
            norms = [np.linalg.norm(gradient[part]) for _, gradient in gradients]
            assert norms[0] / norms[1] == pytest.approx(4.0, rel=0.25)


def test_a_frozen_c_0_stays_and_the_rule_learns():
    method = toy.conv_method(learn_c_0=False)
    before = [keras.ops.convert_to_numpy(w).copy() for w in method.trainable_weights]
    start = method.c_0.numpy().copy()
    compile_method(method)
    method.fit(episode_dataset(toy.image_episodes(), num_episodes=3), verbose=0, shuffle=False)
    np.testing.assert_array_equal(method.c_0, start)
    assert len(before) == 7
    for one, other in zip(before, method.trainable_weights, strict=True):
        assert np.abs(one - other.numpy()).max() > 1e-4


def test_a_linear_layer_that_is_not_learned_stays_and_the_rest_learns():
    method = toy.conv_method(learn_linear=False)
    start = method.c_0.numpy().copy()
    compile_method(method)
    method.fit(episode_dataset(toy.image_episodes(), num_episodes=3), verbose=0, shuffle=False)
    for block in method.learner.parameter_blocks:
        part = slice(block.start, block.start + block.size)
        moved = np.abs(method.c_0.numpy()[part] - start[part]).max()
        assert (moved == 0.0) == block.name.startswith("linear"), block.name
