"""Tests the query loss after every update, with weights that move to the last update."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.update_losses import update_weights
from tf_metalstm.objectives import REGRESSION
from tf_metalstm.options import OptionError
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.training.outer_loop import compile_method


def method_of(num_steps, update_loss_steps=0):
    toy.seed(0)
    rule, loop = SGD(0.1, dtype="float64"), InnerLoop(num_steps)
    return GradientBasedMethod(toy.mlp_learner(), rule, loop, update_loss_steps=update_loss_steps)


def episode():
    support, queries = toy.vector_support(), toy.vector_support(5, seed=8)
    inputs = {
        "support_inputs": support.inputs[tf.newaxis],
        "support_labels": support.labels[tf.newaxis],
        "query_inputs": queries.inputs[tf.newaxis],
    }
    return inputs, queries.labels[tf.newaxis]


@pytest.mark.parametrize(
    ("made", "expected"), [(0, [0.25] * 4), (5, [0.125] * 3 + [0.625]), (10, [0, 0, 0, 1])]
)
def test_weights_by_hand(made, expected):
    np.testing.assert_allclose(update_weights(4, made, 10), expected, rtol=1e-6)


def test_one_update_has_all_the_weight():
    np.testing.assert_array_equal(update_weights(1, 0, 10), [1.0])


def test_the_loss_is_the_weighted_sum_of_those_after_each_update():
    inputs, labels = episode()
    method = method_of(3, update_loss_steps=10)
    outputs = method(inputs, training=True)
    assert outputs.shape == (1, 3, 5, 2)
    shorter = [method_of(t) for t in (1, 2, 3)]
    losses = [m.training_loss(labels, m(inputs, training=True)) for m in shorter]
    np.testing.assert_allclose(method.training_loss(labels, outputs), np.mean(losses), rtol=1e-6)
    compile_method(method)
    method.optimizer.iterations.assign(10)
    np.testing.assert_allclose(method.training_loss(labels, outputs), losses[-1], rtol=1e-6)
    assert method(inputs, training=False).shape == (1, 5, 2)


def test_keras_trains_it_and_judges_the_last_update():
    inputs, labels = episode()
    method = method_of(2, update_loss_steps=10)
    accuracy = np.mean(np.argmax(method(inputs, training=True)[0, -1], axis=-1) == labels[0])
    compile_method(method)
    logs = method.fit(inputs, labels, verbose=0).history
    assert logs["accuracy"] == [pytest.approx(accuracy)]


def test_keras_trains_it_on_functions_too():
    """Their outputs have a last axis of size 1, which Keras must not take away."""
    rule, loop = SGD(0.1, dtype="float64"), InnerLoop(3)
    options = {"objective": REGRESSION, "update_loss_steps": 10}
    learner = FunctionalLearner(mlp((1,), 1, (4,), activation="tanh", dtype="float64"))
    method = GradientBasedMethod(learner, rule, loop, **options)
    x = tf.cast(toy.noise(2, 9, 1), tf.float64)
    names = ("support_inputs", "support_labels", "query_inputs")
    inputs = dict(zip(names, (x[:, :4], tf.sin(x[:, :4]), x[:, 4:]), strict=True))
    labels = tf.sin(x[:, 4:])
    expected = method.training_loss(labels, method(inputs, training=True))
    compile_method(method)
    logs = method.fit(inputs, labels, verbose=0, batch_size=2).history
    assert logs["loss"] == [pytest.approx(float(expected), rel=1e-5)]
    assert method.evaluate(inputs, labels, verbose=0, batch_size=2)


def test_without_updates_there_is_nothing_to_judge():
    with pytest.raises(OptionError, match=r"^update_loss_steps needs updates: leave it out with"):
        method_of(0, update_loss_steps=10)


def test_a_validation_is_of_the_last_update():
    inputs, labels = episode()
    method = method_of(2, update_loss_steps=10)
    compile_method(method)
    logs = method.evaluate(inputs, labels, verbose=0, return_dict=True)
    expected = method_of(2).training_loss(labels, method(inputs, training=False))
    assert logs["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_training_queries_are_normalized_after_each_update_as_after_training():
    network = conv4((16, 16, 1), 3, 4)
    options = {"training_queries": "as_after", "update_loss_steps": 10}
    images = toy.noise(1, 8, 16, 16, 1)
    inputs = {
        "support_inputs": images[:, :6],
        "support_labels": tf.constant([[0, 1, 2, 0, 1, 2]]),
        "query_inputs": images[:, 6:],
    }
    for number in (1, 2):
        method = GradientBasedMethod(
            FunctionalLearner(network), SGD(0.1), InnerLoop(2), "support", **options
        )
        used = GradientBasedMethod(
            method.learner, method.rule, InnerLoop(number), "support", start=method.start
        )
        after = method(inputs, training=True)[:, number - 1]
        np.testing.assert_allclose(after, used(inputs, training=False), rtol=1e-4, atol=1e-5)
