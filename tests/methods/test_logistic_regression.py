"""Tests that the gradient is zero at the weights, and that they equal scikit-learn's."""

import numpy as np
import pytest
import sklearn.linear_model
import tensorflow as tf
import toy

from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.logistic_regression import LogisticRegression, logistic_weights


def problem(num_way, shot, width):
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(num_way), shot)
    inputs = generator.normal(size=(num_way, width))[labels] + generator.normal(
        size=(len(labels), width)
    )
    return inputs / np.linalg.norm(inputs, axis=1, keepdims=True), labels


@pytest.mark.parametrize("penalty", [1.0, 0.1])
@pytest.mark.parametrize("size", [(5, 1, 40), (3, 8, 4), (2, 5, 6)])
def test_the_gradient_of_the_loss_is_zero(size, penalty):
    inputs, labels = problem(*size)
    targets = np.eye(size[0])[labels]
    found = logistic_weights(tf.constant(inputs), tf.constant(targets), penalty, 200).numpy()
    odds = np.exp(inputs @ found)
    wrong = odds / odds.sum(axis=1, keepdims=True) - targets
    np.testing.assert_allclose(inputs.T @ wrong + penalty * found, 0.0, atol=1e-5)


def test_it_is_that_of_scikit_learn():
    inputs, labels = problem(4, 5, 12)
    known = sklearn.linear_model.LogisticRegression(
        C=10.0, fit_intercept=False, tol=1e-10, max_iter=10_000
    ).fit(inputs, labels)
    targets = tf.one_hot(labels, 4, dtype=tf.float64)
    found = logistic_weights(tf.constant(inputs), targets, 0.1, 60)
    np.testing.assert_allclose(found, known.coef_.T, rtol=1e-3, atol=1e-3)


def test_the_penalty_is_learned_through_the_search():
    toy.seed(0)
    method = LogisticRegression(embedding_of(mlp((4,), 1, (3,))), logistic_steps=20)
    x, y = problem(3, 2, 4)
    x, y = tf.constant(x, tf.float32), tf.constant(y, tf.int32)

    def loss(shift):
        method.log_penalty.assign(np.log(0.1) + shift)
        inputs = {"support_inputs": x[:3], "support_labels": y[:3], "query_inputs": x[3:]}
        episode = {name: value[tf.newaxis] for name, value in inputs.items()}
        with tf.GradientTape() as tape:
            logits = method(episode, training=True)[0]
            value = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y[3:], logits))
        return value, tape.gradient(value, method.trainable_variables)

    _, gradients = loss(0.0)
    slope = (loss(0.05)[0] - loss(-0.05)[0]) / 0.1
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    of_penalty = next(
        g for g, v in zip(gradients, method.trainable_variables, strict=True) if "log_" in v.path
    )
    np.testing.assert_allclose(of_penalty, slope, rtol=0.05)


def test_it_says_its_penalty():
    method = LogisticRegression(embedding_of(mlp((4,), 1, ())), logistic_penalty=0.3)
    assert method.facts() == {"logistic_penalty": 0.3}
    again = LogisticRegression.from_config(method.get_config())
    assert (again.logistic_penalty, again.logistic_steps) == (0.3, 60)
