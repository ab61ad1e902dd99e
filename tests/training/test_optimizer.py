"""Tests clipping by value and by norm, the learning rate of each update, and averaged weights."""

import keras
import numpy as np
import pytest
import run_toy
import tensorflow as tf

from tf_metalstm.training.checkpoints import RunCheckpoints
from tf_metalstm.training.optimizer import ClippedAdam, averaged_weights, make_learning_rate


def first_moment(**limits):
    """Returns the gradient (3, -40) as Adam sees it: first moment of a step / (1 - beta_1)."""
    optimizer = ClippedAdam(1e-3, **limits)
    weight = keras.Variable([0.0, 0.0])
    optimizer.build([weight])
    optimizer.apply([tf.constant([3.0, -40.0])], [weight])
    (moment,) = (v for v in optimizer.variables if "momentum" in v.path)
    return moment.numpy() / 0.1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"clip_norm": 0.0}, [3.0, -40.0]),
        ({"clip_norm": 0.0, "clip_value": 10.0}, [3.0, -10.0]),
        ({"clip_norm": 1.0}, np.array([3.0, -40.0]) / np.hypot(3.0, 40.0)),
        ({"clip_norm": 1.0, "clip_value": 4.0}, [0.6, -0.8]),
    ],
)
def test_what_is_left_of_a_gradient(limits, expected):
    np.testing.assert_allclose(first_moment(**limits), expected, rtol=1e-5)


def test_a_weight_without_a_gradient_stays():
    """This happens with a rule that makes no update. The other weights move as usual."""
    optimizer = ClippedAdam(1e-1, clip_norm=1.0)
    used, unused = keras.Variable([1.0]), keras.Variable([2.0])
    optimizer.build([used, unused])
    optimizer.apply([tf.constant([5.0]), None], [used, unused])
    np.testing.assert_allclose(used.numpy(), [0.9], rtol=1e-5)
    np.testing.assert_array_equal(unused.numpy(), [2.0])


@pytest.mark.parametrize("flag", ["clip_norm", "clip_value"])
def test_a_negative_limit_is_refused(flag):
    with pytest.raises(ValueError, match=f"^{flag} must be positive, or 0 for no limit"):
        ClippedAdam(**{flag: -1.0})


@pytest.mark.parametrize(
    ("warmup", "decay", "expected"),
    [
        (4, 0, {0: 0.0, 1: 0.5, 4: 2.0, 999: 2.0}),
        (0, 10, {0: 2.0, 5: 2.0 * (0.01 + 0.99 / 2), 10: 0.02, 999: 0.02}),
        (4, 10, {0: 0.0, 2: 1.0, 4: 2.0, 9: 2.0 * (0.01 + 0.99 / 2), 14: 0.02, 999: 0.02}),
    ],
)
def test_the_rate_rises_and_falls(warmup, decay, expected):
    rate = make_learning_rate(2.0, warmup, decay)
    for step, value in expected.items():
        np.testing.assert_allclose(rate(step), value, rtol=1e-5, err_msg=str(step))


def test_a_rate_that_stays_is_a_number_and_steps_are_not_negative():
    assert make_learning_rate(0.5) == 0.5
    with pytest.raises(ValueError, match=r"^warmup_steps must not be negative, got -1"):
        make_learning_rate(0.5, warmup_steps=-1)


def test_the_average_is_what_is_validated_and_the_training_does_not_notice(tmp_path):
    """Compares averages with a <- 0.6 a + 0.4 w, computed from the weights after each update."""
    straight, _ = run_toy.run(tmp_path / "straight", 4, checkpoint_every=1)
    options = {"checkpoint_every": 1, "compiled": {"weight_average": 0.6}}
    path = []
    for stop in range(1, 5):  # four starts, so that checkpoints must keep the average
        method, checkpoints = run_toy.run(tmp_path / "run", stop, **options)
        path.append([w.numpy() for w in method.trainable_weights])
    for one, other in zip(straight.trainable_weights, path[-1], strict=True):
        np.testing.assert_array_equal(one, other)
    averages = path[0]
    for weights in path[1:]:
        averages = [0.6 * a + 0.4 * w for a, w in zip(averages, weights, strict=True)]
    with averaged_weights(method):
        for one, other in zip(method.trainable_weights, averages, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        answers = method.evaluate(run_toy.stream("validation", 0, 4), verbose=0, return_dict=True)
    best = run_toy.compiled_method()
    assert RunCheckpoints(tmp_path / "run", best).restore("best")
    assert int(checkpoints.best_step) == 4
    for one, other in zip(best.trainable_weights, averages, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert np.abs(best.c_0 - method.c_0).max() > 1e-4
    assert float(checkpoints.best_score) == pytest.approx(answers["accuracy"])


def test_what_is_validated_is_looked_at(tmp_path, monkeypatch):
    method = run_toy.compiled_method(weight_average=0.6)
    seen = []

    def look(step):
        seen.append((step, method.c_0.numpy()))

    monkeypatch.setattr(run_toy, "compiled_method", lambda *_, **__: method)
    run_toy.run(tmp_path, 4, on_validation=look)
    with averaged_weights(method):
        [(step, c_0)] = seen
        assert step == 4
        np.testing.assert_array_equal(c_0, method.c_0)
    assert np.abs(c_0 - method.c_0).max() > 1e-4


def test_an_average_of_nothing_new_is_refused():
    with pytest.raises(ValueError, match=r"^weight_average must be in \[0, 1\), got 1"):
        run_toy.compiled_method(weight_average=1.0)
