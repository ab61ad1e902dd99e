"""Tests ridge regression against NumPy in float64: both closed forms, and the method."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.ridge_regression import RidgeRegression
from tf_metalstm.options import OptionError
from tf_metalstm.ridge import regression, ridge_weights

LABELS = [2, 0, 1, 0, 2, 2, 0]


def method(dtype="float64", **options):
    toy.seed(0)
    network = mlp((3,), 2, (6,), activation="tanh", dtype=dtype)
    return RidgeRegression(embedding_of(network), dtype=dtype, **options)


def episode(labels=LABELS, num_queries=4):
    inputs = np.random.default_rng(0).normal(size=(1, len(labels) + num_queries, 3))
    return {
        "support_inputs": tf.constant(inputs[:, : len(labels)]),
        "support_labels": tf.constant([labels]),
        "query_inputs": tf.constant(inputs[:, len(labels) :]),
    }


def slow_weights(inputs, targets, penalty):
    """Solves least squares of [X; sqrt(l) I] W = [Y; 0], without either closed form."""
    size = inputs.shape[1]
    rows = np.concatenate([inputs, np.sqrt(penalty) * np.eye(size)])
    right = np.concatenate([targets, np.zeros([size, targets.shape[1]])])
    return np.linalg.lstsq(rows, right, rcond=None)[0]


def slow_logits(features, labels, queries, penalty, scale):
    features, queries = (
        np.hstack([x / np.linalg.norm(x, axis=1, keepdims=True), np.ones([len(x), 1])])
        for x in (np.asarray(features, np.float64), np.asarray(queries, np.float64))
    )
    targets = np.eye(max(labels) + 1)[labels]
    return scale * queries @ slow_weights(features, targets, penalty * len(labels))


def test_a_case_by_hand():
    """x = 1, 2 and y = 3, 1 with l = 5 give (1 * 3 + 2 * 1) / (1 + 4 + 5) = 0.5."""
    found = ridge_weights(tf.constant([[1.0], [2.0]]), tf.constant([[3.0], [1.0]]), 5.0)
    np.testing.assert_allclose(found, [[0.5]], rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 9])
@pytest.mark.parametrize("known", [True, False], ids=["eager", "sizes unknown"])
def test_more_or_fewer_images_than_features(size, known):
    generator = np.random.default_rng(size)
    inputs, targets = generator.normal(size=(size, 4)), generator.normal(size=(size, 2))
    solve = ridge_weights
    if not known:
        spec = [tf.TensorSpec([None, None], tf.float64)] * 2 + [tf.TensorSpec([], tf.float64)]
        solve = tf.function(ridge_weights, input_signature=spec)
    found = solve(tf.constant(inputs), tf.constant(targets), tf.constant(0.3, tf.float64))
    np.testing.assert_allclose(found, slow_weights(inputs, targets, 0.3), rtol=1e-9)


@pytest.mark.parametrize("size", [3, 6])
def test_gradients_go_through_the_solution(size):
    """Compares gradients of inputs and penalty with finite differences, in both forms."""
    generator = np.random.default_rng(size)
    inputs, targets = (
        generator.normal(size=(size, 4)),
        tf.constant(generator.normal(size=(size, 2))),
    )
    inputs, penalty = tf.Variable(inputs), tf.Variable(0.7, dtype=tf.float64)

    def loss(x, penalty):
        return tf.reduce_sum(tf.sin(ridge_weights(x, targets, penalty)))

    with tf.GradientTape() as tape:
        value = loss(inputs, penalty)
    to_inputs, to_penalty = tape.gradient(value, [inputs, penalty])
    step, moved = 1e-6, np.zeros([size, 4])
    moved[1, 2] = step
    by_input = (loss(inputs + moved, penalty) - loss(inputs - moved, penalty)) / (2 * step)
    by_penalty = (loss(inputs, penalty + step) - loss(inputs, penalty - step)) / (2 * step)
    np.testing.assert_allclose(to_inputs[1, 2], by_input, rtol=1e-6)
    np.testing.assert_allclose(to_penalty, by_penalty, rtol=1e-6)


@pytest.mark.parametrize("labels", [LABELS, [0, 1, 2]], ids=["7 images", "3 images"])
@pytest.mark.parametrize("training", [True, False])
def test_agrees_with_the_oracle(labels, training):
    """Six features and a column of ones give 7 equations; the classes have different sizes."""
    ridge, inputs = method(ridge_penalty=0.2, ridge_scale=3.0), episode(labels)
    features, queries = (
        ridge.embedding(inputs[name][0]) for name in ("support_inputs", "query_inputs")
    )
    expected = slow_logits(features, labels, queries, 0.2, 3.0)
    assert np.ptp(expected, axis=1).min() > 1e-3  # else the test would not depend on the classes
    # Keras's constants are float32.
    np.testing.assert_allclose(ridge(inputs, training=training)[0], expected, rtol=1e-6)


def test_twice_the_same_support_set_changes_nothing():
    """The penalty is added to the mean of the squared errors, not to their sum."""
    features, labels = toy.noise(4, 3), tf.constant([0, 1, 1, 0])
    once = regression(features, labels, 2, 0.1)
    twice = regression(tf.tile(features, [2, 1]), tf.tile(labels, [2]), 2, 0.1)
    np.testing.assert_allclose(once, twice, rtol=1e-4, atol=1e-5)


def test_a_class_without_images_changes_no_other():
    ridge = method()
    found, expected = (ridge(episode(labels))[0].numpy() for labels in ([0, 2, 0], [0, 1, 0]))
    assert np.all(found[:, 1] == np.finfo(np.float64).min)
    np.testing.assert_allclose(found[:, [0, 2]], expected, rtol=1e-12)


def test_the_penalty_and_the_scale_are_learned():
    ridge, inputs = method(), episode()
    with tf.GradientTape() as tape:
        loss = ridge.training_loss(tf.constant([[0, 1, 2, 1]]), ridge(inputs, training=True))
    learned = {"log_penalty": ridge.log_penalty, "log_scale": ridge.log_scale}
    for name, gradient in tape.gradient(loss, {k: v.value for k, v in learned.items()}).items():
        assert abs(float(gradient)) > 1e-3, name
    assert ridge.facts() == {"ridge_penalty": 0.1, "ridge_scale": 10.0}


def test_survives_its_config():
    ridge = method("float32", ridge_penalty=0.3, ridge_scale=2.0)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ridge))
    assert copy.get_config() == ridge.get_config()


@pytest.mark.parametrize("name", ["ridge_penalty", "ridge_scale"])
def test_no_penalty_and_no_scale_are_refused(name):
    with pytest.raises(OptionError, match=f"^{name} must be a number above 0, got 0"):
        method(**{name: 0.0})
