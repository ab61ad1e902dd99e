"""Tests updates of the last layer against NumPy in float64, and features that are computed once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm import experiment
from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.episode import Support
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.head_adaptation import HeadAdaptation
from tf_metalstm.methods.last_layer import HEAD_STARTS
from tf_metalstm.methods.ridge_regression import RidgeRegression
from tf_metalstm.options import OptionError
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.settings import make_settings
from tf_metalstm.training.outer_loop import compile_method

LABELS = [2, 0, 1, 0, 2, 2, 0]
RATE, SCALE, PENALTY = 0.3, 2.0, 0.2


def embedding(dtype="float64"):
    toy.seed(0)
    return embedding_of(mlp((3,), 2, (6,), activation="tanh", dtype=dtype))


def method(head_start="prototypes", num_steps=3, dtype="float64", **options):
    return HeadAdaptation(
        embedding(dtype),
        SGD(RATE, dtype=dtype),
        InnerLoop(num_steps, second_order=True),
        head_start=head_start,
        logit_scale=SCALE,
        start_penalty=PENALTY,
        dtype=dtype,
        **options,
    )


def episode(num_queries=4):
    inputs = np.random.default_rng(0).normal(size=(1, len(LABELS) + num_queries, 3))
    return {
        "support_inputs": tf.constant(inputs[:, : len(LABELS)]),
        "support_labels": tf.constant([LABELS]),
        "query_inputs": tf.constant(inputs[:, len(LABELS) :]),
    }


def unit(features):
    features = np.asarray(features, np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def slow_start(features, head_start):
    """Returns w_k and b_k of three classes, [3, D + 1], computed with loops."""
    rows = np.zeros((3, features.shape[1] + 1))
    if head_start == "prototypes":
        for k in range(3):
            mean = features[np.equal(LABELS, k)].mean(axis=0)
            rows[k, :-1] = mean / np.linalg.norm(mean)
    if head_start == "ridge":
        ones = np.hstack([features, np.ones((len(features), 1))])
        system = ones.T @ ones + len(features) * PENALTY * np.eye(ones.shape[1])
        rows = np.linalg.solve(system, ones.T @ np.eye(3)[LABELS]).T
    return rows


def slow_logits(features, queries, head_start, num_steps):
    features, queries = unit(features), unit(queries)
    rows = slow_start(features, head_start)
    for _ in range(num_steps):
        change = np.zeros_like(rows)
        for x, label in zip(features, LABELS, strict=True):
            x = np.append(x, 1.0)
            likely = np.exp(SCALE * rows @ x)
            likely /= likely.sum()
            for k in range(3):
                change[k] += SCALE * (likely[k] - (k == label)) * x / len(LABELS)
        rows = rows - RATE * change
    return SCALE * np.hstack([queries, np.ones((len(queries), 1))]) @ rows.T


@pytest.mark.parametrize("head_start", HEAD_STARTS)
@pytest.mark.parametrize("num_steps", [0, 3])
def test_agrees_with_the_oracle(head_start, num_steps):
    found, task = method(head_start, num_steps), episode()
    features = [found.embedding(task[f"{name}_inputs"][0]) for name in ("support", "query")]
    expected = slow_logits(*features, head_start, num_steps)
    np.testing.assert_allclose(found(task)[0], expected, rtol=1e-6)


def test_a_ridge_start_without_updates_is_ridge_regression():
    other = RidgeRegression(embedding(), None, PENALTY, SCALE, dtype="float64")
    np.testing.assert_allclose(method("ridge", 0)(episode()), other(episode()), rtol=1e-9)


def test_training_and_use_have_numbers_of_updates_of_their_own():
    more, task = method(num_steps=1, num_evaluation_steps=4), episode()
    np.testing.assert_allclose(more(task), method(num_steps=4)(task), rtol=1e-9)
    np.testing.assert_allclose(
        more(task, training=True), method(num_steps=1)(task, training=True), rtol=1e-9
    )


def test_the_trace_has_the_losses_and_another_number_of_updates():
    found, task = method(), episode()
    support = Support(task["support_inputs"][0], tf.constant(LABELS))
    state, trace = found.adapt_and_trace(support, tf.constant(2))
    assert trace["losses"].shape == (2,)
    np.testing.assert_allclose(state.rows, method(num_steps=2).adapt(support).rows, rtol=1e-9)


@pytest.mark.parametrize("second_order", [True, False])
def test_the_meta_gradient_of_the_scale(second_order):
    """Compares with finite differences. The first order ignores how the gradient changes."""
    found, task = method(), episode()
    found.inner_loop = InnerLoop(3, second_order)

    def loss():
        return tf.reduce_sum(tf.sin(found(task, training=True)))

    with tf.GradientTape() as tape:
        value = loss()
    slope, middle = tape.gradient(value, found.log_scale.value), float(found.log_scale)
    sides = []
    for step in (1e-5, -1e-5):
        found.log_scale.assign(middle + step)
        sides.append(float(loss()))
    assert (abs(slope - (sides[0] - sides[1]) / 2e-5) < 1e-6) == second_order


def test_frozen_features_are_computed_once_and_stay():
    """Two updates on features equal those on images, and the network does not change."""
    said = {"method": "head_adaptation", "source": "toys", "normalization": "unit", "num_way": 3}
    said |= {"num_shot": 2, "num_query": 3, "num_steps": 2, "max_steps": 2, "learner": "mlp"}
    said |= {"hidden_layers": (4,), "rule": "sgd", "learn_inner_rate": True}
    settings = make_settings({**said, "learn_features": False})
    tasks = build_tasks(settings)
    settings, ends = resolve(settings, tasks), []
    for by_features in (True, False):
        toy.seed(0)
        found = build_method(settings, tasks)
        before = [w.numpy() for w in found.embedding.weights]
        compile_method(found, 0.1)
        stream = experiment.training_episodes(settings, tasks, 0, found if by_features else None)
        assert ("support_features" in stream.element_spec[0]) == by_features
        found.fit(stream, steps_per_epoch=2, verbose=0)
        for weight, old in zip(found.embedding.weights, before, strict=True):
            np.testing.assert_array_equal(weight, old)
        ends.append([w.numpy() for w in found.trainable_weights])
    for by_features, by_images in zip(*ends, strict=True):
        np.testing.assert_allclose(by_features, by_images, rtol=1e-3, atol=1e-5)
    validation = experiment.validation_episodes(settings, tasks, found)
    assert "support_features" in validation.element_spec[0]


def test_saved_and_read_it_answers_as_before(tmp_path):
    found = method("ridge", dtype="float32", learn_features=False)
    found.log_scale.assign(0.5)
    found.save(tmp_path / "head.keras")
    read = keras.saving.load_model(tmp_path / "head.keras")
    assert read.features_are_frozen
    assert not found.keeps_statistics
    np.testing.assert_allclose(read(episode()), found(episode()), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_start": "middle"}, "^head_start must be one of "),
        ({"logit_scale": 0.0}, "^logit_scale must be a number above 0, got 0"),
        ({"start_penalty": -1.0}, "^start_penalty must be a number above 0, got -1"),
    ],
)
def test_refuses_what_cannot_be(options, message):
    with pytest.raises(OptionError, match=message):
        HeadAdaptation(embedding(), SGD(RATE), InnerLoop(1), **options)
