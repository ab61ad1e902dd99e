"""Functions instead of classes are adapted, trained and exported by the same code."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.sine import SineTasks
from tf_metalstm.objectives import REGRESSION
from tf_metalstm.rules.catalogue import RULES
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.serving.saved_model import save_method
from tf_metalstm.serving.served import ServedMethod
from tf_metalstm.training.outer_loop import compile_method

TASKS = SineTasks(num_shot=5, num_query=4)


def stream(num_episodes, episodes_per_step=1, split="train"):
    episodes = TASKS.episodes(split, seed=0)
    return episode_dataset(episodes, num_episodes=num_episodes, episodes_per_step=episodes_per_step)


def test_gradient_descent_on_the_mean_squared_error_by_hand():
    method = toy.regression_method(SGD(0.05, dtype="float64"), num_steps=2)
    inputs, _ = next(iter(stream(1)))
    theta = tf.Variable(method.learner.initial_parameters())
    statistics = tf.zeros([0], tf.float64)
    for _ in range(2):
        with tf.GradientTape() as tape:
            outputs, _ = method.learner.apply(theta, statistics, inputs["support_inputs"][0], True)
            labels = tf.cast(inputs["support_labels"][0], tf.float64)
            loss = tf.reduce_mean((outputs - labels) ** 2)
        theta.assign_sub(0.05 * tape.gradient(loss, theta))
    expected, _ = method.learner.apply(theta, statistics, inputs["query_inputs"][0], False)
    np.testing.assert_allclose(method(inputs)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", toy.FEW_SHOT_RULES)
def test_episodes_as_one_batch_are_episodes_one_by_one(name):
    inputs, labels = next(iter(stream(3, episodes_per_step=3)))
    outputs, gradients = [], []
    for vectorize in (False, True):
        toy.seed(1)
        rule = RULES[name](dtype="float64")
        method = toy.regression_method(rule, vectorize_episodes=vectorize)
        with tf.GradientTape() as tape:
            found = method(inputs, training=True)
            loss = REGRESSION.loss(tf.cast(labels, tf.float64), found)
        outputs.append(found.numpy())
        gradients.append(tape.gradient(loss, [w.value for w in method.trainable_weights]))
    np.testing.assert_allclose(*outputs, rtol=1e-9)
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-12)


def test_another_number_of_updates_outside_training():
    inputs, _ = next(iter(stream(1)))
    answers = {}
    for training_steps, evaluation_steps in ((1, 3), (1, None), (3, None)):
        toy.seed(1)
        rule = SGD(0.05, dtype="float64")
        method = toy.regression_method(rule, training_steps, num_evaluation_steps=evaluation_steps)
        answers[training_steps, evaluation_steps] = [
            method(inputs, training=training).numpy() for training in (True, False)
        ]
    np.testing.assert_array_equal(answers[1, 3][0], answers[1, None][0])
    np.testing.assert_array_equal(answers[1, 3][1], answers[3, None][1])
    assert np.abs(answers[1, 3][0] - answers[1, 3][1]).max() > 1e-4


@pytest.mark.parametrize("name", toy.FEW_SHOT_RULES)
def test_training_lowers_the_error_of_unseen_waves(name):
    toy.seed(0)
    options = {"rate": 0.01} if name == "sgd" else {}
    method = toy.regression_method(
        RULES[name](dtype="float64", **options), 1, vectorize_episodes=True
    )
    compile_method(method, learning_rate=1e-2, clip_norm=0.0)
    before = method.evaluate(stream(100, 25, "validation"), verbose=0, return_dict=True)
    method.fit(stream(10_000, 25), verbose=0, shuffle=False)
    after = method.evaluate(stream(100, 25, "validation"), verbose=0, return_dict=True)
    assert after["mse"] < 0.8 * before["mse"]
    np.testing.assert_allclose(after["mse"], after["loss"], rtol=1e-5)
    assert 0 < after["interval"] < after["mse"]


def test_the_exported_model_fits_functions(tmp_path):
    method = toy.regression_method(SGD(0.05, dtype="float64"))
    manifest = save_method(ServedMethod(method, None, (1,), 1), tmp_path / "model")
    assert manifest["objective"] == "regression"
    assert manifest["input_shape"] == [1]
    inputs, _ = next(iter(stream(1)))
    signatures = tf.saved_model.load(str(tmp_path / "model")).signatures
    support = {name: inputs[name][0] for name in ("support_inputs", "support_labels")}
    assert signatures.keys() == {"adapt", "predict", "classify"}
    adapted = signatures["adapt"](**support, num_steps=tf.constant(2))
    assert adapted["support_losses"].shape == [2]
    taken = {name: adapted[name] for name in ("parameters", "statistics")}
    answer = signatures["predict"](query_inputs=inputs["query_inputs"][0], **taken)
    np.testing.assert_allclose(answer["outputs"], method(inputs)[0], rtol=1e-6)
