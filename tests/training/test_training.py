"""Tests the outer loop: exact continuation, the best checkpoint, the time limit, NaN losses."""

import numpy as np
import pytest
import run_toy
import tensorflow as tf
import toy

from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.objectives import CLASSIFICATION, REGRESSION
from tf_metalstm.training.checkpoints import NotFiniteError, RunCheckpoints
from tf_metalstm.training.history import read_history
from tf_metalstm.training.metrics import ScoreInterval, estimate
from tf_metalstm.training.schedule import Schedule


def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path):
    straight, straight_checkpoints = run_toy.run(tmp_path / "straight", 12)
    run_toy.run(tmp_path / "resumed", 4)
    # The seed differs: only the checkpoint decides, not the initial weights.
    resumed, resumed_checkpoints = run_toy.run(tmp_path / "resumed", 12, seed=99)
    for one, other in zip(run_toy.values(straight), run_toy.values(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
    assert read_history(tmp_path / "straight") == read_history(tmp_path / "resumed")
    for name in ("step", "best_score", "best_step"):
        one, other = (getattr(c, name) for c in (straight_checkpoints, resumed_checkpoints))
        assert one.numpy() == other.numpy()


def test_the_validation_list_is_made_for_the_weights_of_the_run(tmp_path):
    """It may hold features of a network that stays as it is."""
    before, _ = run_toy.run(tmp_path, 4)
    seen = []

    def on_list(method):
        seen.append([w.numpy() for w in method.weights])

    run_toy.run(tmp_path, 6, seed=99, on_list=on_list)
    [weights] = seen
    for one, other in zip(before.weights, weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other)


def test_a_run_cut_between_log_and_checkpoint_writes_nothing_twice(tmp_path):
    run_toy.run(tmp_path, 4)
    # The files that a run writes just before it is killed.
    with (tmp_path / "history.csv").open("a") as file:
        file.write("6,1.5,0.2,,,\n")
    writer = tf.summary.create_file_writer(str(tmp_path / "tensorboard"))
    with writer.as_default(step=6):
        tf.summary.scalar("train/loss", 1.5)
    writer.close()
    run_toy.run(tmp_path, 8)
    assert [row["step"] for row in read_history(tmp_path)] == ["2", "4", "6", "8"]
    logged = [step for step, tag, _ in run_toy.scalars(tmp_path) if tag == "train/loss"]
    assert logged == [2, 4, 6, 8]


def test_a_finished_run_is_left_alone(tmp_path):
    run_toy.run(tmp_path, 4)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    run_toy.run(tmp_path, 4)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_a_method_that_is_not_trained_has_checkpoints_of_its_start(tmp_path):
    method, checkpoints = run_toy.run(tmp_path, 0)
    fresh = run_toy.compiled_method()
    np.testing.assert_array_equal(method.c_0, fresh.c_0)
    for which in ("last", "best"):
        fresh.c_0.assign(fresh.c_0 + 1.0)
        assert RunCheckpoints(tmp_path, fresh).restore(which)
        np.testing.assert_array_equal(method.c_0, fresh.c_0)
    assert 0.0 <= float(checkpoints.best_score) <= 1.0
    assert int(checkpoints.step) == 0


def test_the_best_weights_are_those_of_the_best_validation(tmp_path):
    _, checkpoints = run_toy.run(tmp_path, 12)
    rows = [row for row in read_history(tmp_path) if row["val_accuracy"]]
    assert len(rows) == 3
    best = max(rows, key=lambda row: float(row["val_accuracy"]))  # the first of equals
    assert int(checkpoints.best_step) == int(best["step"])
    method = run_toy.compiled_method(5)
    readers = RunCheckpoints(tmp_path, method)
    assert readers.restore("best")
    assert int(readers.step) == int(best["step"])
    evaluated = method.evaluate(
        run_toy.stream("validation", num_episodes=4), verbose=0, return_dict=True
    )
    np.testing.assert_allclose(evaluated["accuracy"], float(best["val_accuracy"]), rtol=1e-5)
    np.testing.assert_allclose(evaluated["interval"], float(best["val_interval"]), rtol=1e-4)


def test_time_is_counted_over_all_starts(tmp_path):
    _, first = run_toy.run(tmp_path, 100, max_minutes=1e-6)
    assert int(first.step) == 2  # the first update that reads the clock
    spent = float(first.minutes)
    assert spent > 0
    _, again = run_toy.run(tmp_path, 100, max_minutes=spent / 2)
    assert int(again.step) == 2
    _, longer = run_toy.run(tmp_path, 6, max_minutes=100.0)
    assert int(longer.step) == 6
    assert float(longer.minutes) > spent


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_last_good_checkpoint(tmp_path):
    def spoilt(step):
        def spoil(index, episode):
            inputs, labels = episode
            factor = tf.where(index + step == 4, float("nan"), 1.0)
            return {**inputs, "query_inputs": inputs["query_inputs"] * factor}, labels

        return run_toy.stream("train", step).enumerate().map(spoil)

    with pytest.raises(NotFiniteError, match=r"The loss is not .* at update 5\. .*step-4") as error:
        run_toy.run(tmp_path, 12, training=spoilt)
    assert "Lower learning_rate" in str(error.value)
    method = run_toy.compiled_method()
    checkpoints = RunCheckpoints(tmp_path, method, method.optimizer)
    assert checkpoints.restore()
    assert int(checkpoints.step) == 4
    assert all(np.isfinite(value).all() for value in run_toy.values(method))


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    method = run_toy.compiled_method()
    checkpoints = RunCheckpoints(tmp_path, method, method.optimizer)
    checkpoints.save(2, minutes=0.1)
    method.c_0.assign(method.c_0 * float("nan"))
    with pytest.raises(NotFiniteError, match=r"c_0 is not a finite number at update 4.*step-2"):
        checkpoints.save(4, minutes=0.2)
    assert checkpoints.last_path.name == "step-2"


def test_only_the_last_few_checkpoints_are_kept(tmp_path):
    run_toy.run(tmp_path, 12)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.index"))
    assert kept == ["step-10.index", "step-12.index", "step-8.index"]
    assert len(list((tmp_path / "best").glob("*.index"))) == 1


def test_restoring_says_whether_there_was_anything(tmp_path):
    checkpoints = RunCheckpoints(tmp_path, run_toy.compiled_method())
    assert not checkpoints.restore()
    assert not checkpoints.restore("best")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_steps": 105}, r"^max_steps must be a positive multiple .* 10; got 105"),
        ({"max_steps": 100, "validate_every": 15}, r"^validate_every must be .* got 15"),
        ({"max_steps": -10}, r"^max_steps must be a positive multiple"),
    ],
)
def test_a_schedule_must_add_up(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**{"checkpoint_every": 10, "validate_every": 50, **arguments})


def test_the_interval_metric_is_the_interval_of_the_episodes():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, (9, 12))
    logits = generator.normal(size=(9, 12, 3))
    metric = ScoreInterval(CLASSIFICATION)
    for i in range(0, 9, 3):
        metric.update_state(labels[i : i + 3], logits[i : i + 3])
    expected = estimate(np.mean(np.argmax(logits, -1) == labels, axis=1))
    np.testing.assert_allclose(metric.result(), expected.interval, rtol=1e-5)


def test_the_interval_metric_of_large_scores_that_differ_little():
    errors = 1e4 + np.random.default_rng(0).normal(size=(100, 1, 1))
    metric = ScoreInterval(REGRESSION)
    metric.update_state(np.zeros_like(errors), np.sqrt(errors))
    assert float(metric.result()) == pytest.approx(estimate(errors[:, 0, 0]).interval, rel=1e-2)


def test_an_estimate_by_hand():
    mean, interval = estimate([0.2, 0.4, 0.9])
    deviation = np.sqrt((0.3**2 + 0.1**2 + 0.4**2) / 2)
    np.testing.assert_allclose([mean, interval], [0.5, 1.96 * deviation / np.sqrt(3)])
    assert np.isnan(estimate([0.5]).interval)


def test_one_trace_for_each_shape_of_an_episode(monkeypatch):
    method = run_toy.compiled_method()
    traced = []
    adapt = method.adapt
    monkeypatch.setattr(
        method, "adapt", lambda *given, **named: traced.append(1) or adapt(*given, **named)
    )

    def fit(num_query):
        episodes = toy.image_episodes(EpisodeSpec(5, 1, num_query), "train")
        method.fit(
            episode_dataset(episodes),
            steps_per_epoch=2,
            epochs=3,
            validation_data=episode_dataset(episodes, num_episodes=3),
            shuffle=False,
            verbose=0,
        )
        return len(traced)

    assert fit(num_query=2) == 2  # a training step and a validation step
    assert fit(num_query=2) == 2
    assert fit(num_query=3) == 4
