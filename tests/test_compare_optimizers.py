"""Tests the comparison of optimizers: its report and its errors."""

import json
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm import compare_optimizers, experiment, train
from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.comparison import keras_optimizers
from tf_metalstm.comparison.keras_optimizers import BASELINES
from tf_metalstm.data.quadratics import QuadraticOptions, QuadraticTasks
from tf_metalstm.keras_optimizer import LearnedOptimizer, fitted
from tf_metalstm.options import OptionError
from tf_metalstm.settings import KERAS_OPTIMIZERS, make_settings

MODELS = Path(__file__).parents[1] / "models"
RATES = (0.01, 0.1)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Compares an untrained rule and gradient descent on four problems."""
    run_dir = tmp_path_factory.mktemp("compared")
    said = {"source": "quadratics", "method": "learned_optimizer", "rule": "sgd", "num_steps": 2}
    said |= {"quadratic_size": 3, "max_steps": 0, "validation_episodes": 2, "num_episodes": 4}
    said |= {"inner_rate": RATES[1]}
    settings = make_settings({**said, "deterministic": False}, str(run_dir))
    train.main(settings)
    shutil.copytree(MODELS / "optimizers" / "quadratics", run_dir / "given" / "optimizer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras_optimizers, "RATES", RATES)
        given = (str(run_dir / "given" / "optimizer"),)
        compare_optimizers.main(
            settings.changed(num_evaluation_steps=3, optimizer_dirs=given, baselines=("SGD",))
        )
    [path] = (run_dir / "comparison").glob("*.json")
    return path, json.loads(path.read_text())


def test_the_report_has_curves_rates_and_intervals(report):
    path, found = report
    assert path.name == "test_quadratics_3updates_best0_4problems_seed0_2searched_given_SGD.json"
    assert found["optimizers"].keys() == {"learned", "given", "SGD", "Adam", "Adam, not tuned"}
    assert found["best_baseline"] in ("SGD", "Adam")
    for name, one in found["optimizers"].items():
        assert len(one["mean_losses"]) == len(one["intervals"]) == 4
        assert len(one["final_losses"]) == 4
        value, low, high = one["log10_final"]
        assert low <= value <= high
        np.testing.assert_allclose(value, np.log10(one["mean_losses"][-1]), atol=1e-4)
        assert (one["learning_rate"] is None) == (name in ("learned", "given"))
    assert len(found["optimizers"]["SGD"]["searched"]) == 4
    assert found["optimizers"]["Adam"]["over_adam"] == [1.0, 1.0, 1.0]
    assert found["list_fingerprint"]
    assert found["step"] == 0


def test_the_learned_rule_is_on_the_same_problems(report):
    """All start at the same losses. Gradient descent as a rule has the curve of Keras's."""
    _, found = report
    starts = {one["mean_losses"][0] for one in found["optimizers"].values()}
    assert max(starts) - min(starts) < 1e-4 * max(starts)
    tasks = QuadraticTasks.from_options(QuadraticOptions(quadratic_size=3))
    problems = compare_optimizers._batch(tasks.episodes("test", 0), 4)
    [sgd] = [each for each in BASELINES if each.name == "SGD"]
    losses = keras_optimizers.Minimizer(sgd, tasks, problems, 3).losses(RATES[1])
    learned = found["optimizers"]["learned"]
    np.testing.assert_allclose(learned["mean_losses"], losses.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(learned["final_losses"], losses[:, -1], rtol=1e-4)
    assert losses.mean(axis=0)[-1] < 0.9 * losses.mean(axis=0)[0]


def test_an_exported_optimizer_is_on_the_same_problems(report):
    """Its losses equal those of a loop that calls the rule of the folder directly."""
    _, found = report
    rule = LearnedOptimizer.load(MODELS / "optimizers" / "quadratics").rule
    tasks = QuadraticTasks.from_options(QuadraticOptions(quadratic_size=3))
    task, _ = tasks.episodes("test", 0)(tf.constant(1, tf.int64))
    problem, theta = tasks.problem(task), task["theta_0"]
    rule = fitted(type(rule).from_config(rule.get_config()), rule, tasks.blocks)
    state = rule.initial_state(theta)
    for step in range(3):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss, _ = problem.loss(theta, (), step)
        theta, state = rule(tape.gradient(loss, theta), loss, theta, state)
    last, _ = problem.loss(theta, (), 3)
    np.testing.assert_allclose(found["optimizers"]["given"]["final_losses"][1], last, rtol=1e-4)


def test_adam_is_also_tested_at_its_default_rate(report):
    _, found = report
    untuned = found["optimizers"]["Adam, not tuned"]
    assert untuned["learning_rate"] == 0.001
    assert found["best_baseline"] != "Adam, not tuned"
    first, last = untuned["mean_losses"][0], untuned["mean_losses"][-1]
    assert 0 < first - last < 0.05 * first  # three steps of 0.001


@pytest.mark.parametrize("names", [("a", "a"), ("Adam",)])
def test_two_optimizers_of_one_name_are_refused(tmp_path, names):
    folders = [tmp_path / str(number) / name for number, name in enumerate(names)]
    for folder in folders:
        shutil.copytree(MODELS / "optimizers" / "quadratics", folder)
    tasks = QuadraticTasks.from_options(QuadraticOptions(quadratic_size=3))
    method = mock.Mock(tasks=tasks, blocks=tasks.blocks, evaluation_loop=InnerLoop(num_steps=2))
    with pytest.raises(OptionError, match=f"two optimizers called {names[0]}: rename a folder"):
        compare_optimizers.exported_methods([str(folder) for folder in folders], method)


def test_baselines_are_those_of_the_option():
    """No name of one is missing there, and Muon is refused without matrices."""
    assert tuple(each.name for each in BASELINES) == KERAS_OPTIMIZERS
    tasks = QuadraticTasks.from_options(QuadraticOptions(quadratic_size=3))
    with pytest.raises(OptionError, match=r"^baselines has Muon, which needs matrices"):
        compare_optimizers._chosen_baselines(("Muon",), tasks.blocks)


def test_a_folder_without_an_optimizer_is_refused(tmp_path):
    with pytest.raises(OptionError, match=r"^optimizer_dirs cannot be used: .*manifest.json"):
        compare_optimizers.exported_methods([str(tmp_path)], mock.Mock())


def test_table_figure_and_curves_lie_beside_it(report):
    path, _ = report
    text = path.with_suffix(".txt").read_text()
    assert "log10 of mean final loss" in text
    assert [line.split()[0] for line in text.splitlines()[2:-1]].count("learned") == 1
    assert path.with_suffix(".png").stat().st_size > 1000
    runs = {each.name for each in (path.parents[1] / "tensorboard" / "comparison").iterdir()}
    assert runs == {"learned", "given", "SGD", "Adam", "Adam__not_tuned"}


def test_a_run_of_another_method_is_refused(monkeypatch):
    run = mock.Mock()
    monkeypatch.setattr(experiment, "load_run", lambda settings: run)
    with pytest.raises(ValueError, match=r"method=gradient_based is no learned optimizer"):
        compare_optimizers.main(toy.settings())
