"""The command that compares: what it writes, and what it refuses."""

import json
from unittest import mock

import numpy as np
import pytest
import toy

from tf_metalstm import compare_optimizers, experiment, train
from tf_metalstm.comparison import keras_optimizers
from tf_metalstm.comparison.keras_optimizers import BASELINES
from tf_metalstm.settings import make_settings


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Of a rule that was not trained, gradient descent, on four problems."""
    run_dir = tmp_path_factory.mktemp("compared")
    said = {"source": "quadratics", "method": "learned_optimizer", "rule": "sgd", "num_steps": 2}
    said |= {"quadratic_size": 3, "max_steps": 0, "validation_episodes": 2, "num_episodes": 4}
    settings = make_settings({**said, "deterministic": False}, str(run_dir))
    train.main(settings)
    few = [each for each in BASELINES if each.name in ("SGD", "Adam")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_optimizers, "applicable", lambda blocks: few)
        patch.setattr(keras_optimizers, "RATES", (0.01, 0.1))
        compare_optimizers.main(settings.changed(num_evaluation_steps=3))
    [path] = (run_dir / "comparison").glob("*.json")
    return path, json.loads(path.read_text())


def test_the_report_has_curves_rates_and_intervals(report):
    path, found = report
    assert path.name == "test_quadratics_3updates_4problems_seed0.json"
    assert found["optimizers"].keys() == {"learned", "SGD", "Adam"}
    assert found["best_baseline"] in ("SGD", "Adam")
    for name, one in found["optimizers"].items():
        assert len(one["mean_losses"]) == len(one["intervals"]) == 4
        assert len(one["final_losses"]) == 4
        value, low, high = one["log10_final"]
        assert low <= value <= high
        np.testing.assert_allclose(value, np.log10(one["mean_losses"][-1]), atol=1e-4)
        assert (one["learning_rate"] is None) == (name == "learned")
    assert len(found["optimizers"]["SGD"]["searched"]) == 4
    assert found["optimizers"]["Adam"]["over_adam"] == [1.0, 1.0, 1.0]
    assert found["list_fingerprint"]
    assert found["step"] == 0


def test_the_learned_rule_is_on_the_same_problems(report):
    """All start at the same losses, and gradient descent by the rule is that of Keras."""
    _, found = report
    starts = {one["mean_losses"][0] for one in found["optimizers"].values()}
    assert max(starts) - min(starts) < 1e-4 * max(starts)
    learned, sgd = (found["optimizers"][name] for name in ("learned", "SGD"))
    assert learned["mean_losses"][-1] >= 0.99 * min(
        sgd["mean_losses"][-1], learned["mean_losses"][0]
    )


def test_table_figure_and_curves_lie_beside_it(report):
    path, _ = report
    text = path.with_suffix(".txt").read_text()
    assert "log10 of mean final loss" in text
    assert [line.split()[0] for line in text.splitlines()[2:-1]].count("learned") == 1
    assert path.with_suffix(".png").stat().st_size > 1000
    runs = {each.name for each in (path.parents[1] / "tensorboard" / "comparison").iterdir()}
    assert runs == {"learned", "SGD", "Adam"}


def test_a_run_of_another_method_is_refused(monkeypatch):
    run = mock.Mock()
    monkeypatch.setattr(experiment, "load_run", lambda settings: run)
    monkeypatch.setattr(experiment, "tasks_of_run", lambda settings, run: None)
    with pytest.raises(ValueError, match=r"method=gradient_based is no learned optimizer"):
        compare_optimizers.main(toy.settings())
