"""The search: what it tries, what it keeps, how it goes on, and that it finds the better one."""

import csv
import dataclasses
import pathlib

import pytest
import toy

from tf_metalstm import experiment, search
from tf_metalstm.construction import build_method
from tf_metalstm.flags import read_settings, write_settings
from tf_metalstm.search import parse_grid, with_values
from tf_metalstm.settings import (
    DataSettings,
    EvaluationSettings,
    MethodSettings,
    Settings,
    TrainingSettings,
)
from tf_metalstm.training.checkpoints import RunCheckpoints

GRID = ["inner_rate=0.00001|1.0", "inner_decay=0|3"]


class ToySource:
    name = "toys"
    image_shape = (16, 16, 1)

    def load(self, split):
        assert split == "validation"
        return toy.glyph_like_classes(num_classes=8)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "make_source", lambda *args, **options: ToySource())
    settings = Settings(
        data=DataSettings(num_way=3, num_shot=2, num_query=3, normalization="unit"),
        method=MethodSettings(rule="sgd", num_steps=3, learner="mlp", num_outputs=3),
        training=TrainingSettings(validation_episodes=10),
        evaluation=EvaluationSettings(grid=GRID),
        run_dir=str(tmp_path / "run"),
    )
    write_settings(settings, settings.run_dir)
    method = build_method(settings, experiment.build_tasks(settings.data))
    RunCheckpoints(settings.run_dir, method).save_best(0.5, step=0)
    return settings


def rows(settings):
    with pathlib.Path(settings.run_dir, "search.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_round_has_a_quarter_of_the_combinations_and_more_of_the_list(settings, monkeypatch):
    tried = []

    def score(settings, tasks, num_episodes):
        tried.append((num_episodes, settings.method.inner_rate))
        return -settings.method.inner_rate, 0.01

    monkeypatch.setattr(search, "_score", score)
    grid = [f"inner_rate={'|'.join(str(n) for n in range(20, 0, -1))}"]
    all_of_them, quarter, sixteenth = 20, 5, 2
    for episodes, rounds in (
        (50, {5: all_of_them, 10: quarter, 50: sixteenth}),
        (10, {2: all_of_them, 10: quarter}),
        (1, {1: all_of_them}),
    ):
        tried.clear()
        pathlib.Path(settings.run_dir, "search.csv").unlink(missing_ok=True)
        training = dataclasses.replace(settings.training, validation_episodes=episodes)
        evaluation = EvaluationSettings(grid=grid)
        search.main(dataclasses.replace(settings, training=training, evaluation=evaluation))
        expected = [(n, rate) for n, kept in rounds.items() for rate in range(1, kept + 1)]
        assert sorted(tried) == sorted(expected)
        found = pathlib.Path(settings.run_dir, "found.flags").read_text()
        assert found == "--inner_rate=1\n"


def test_the_better_combination_is_found(settings, capsys):
    search.main(settings)
    assert [row["episodes"] for row in rows(settings)] == ["2"] * 4 + ["10"]
    found = pathlib.Path(settings.run_dir, "found.flags").read_text().splitlines()
    best = rows(settings)[-1]
    assert best["inner_rate"] == "1.0"  # the other moves nothing
    assert found == [f"--inner_rate={best['inner_rate']}", f"--inner_decay={best['inner_decay']}"]
    assert float(best["mean"]) > 0.45  # chance is a third
    assert "Next: python -m tf_metalstm.evaluate" in capsys.readouterr().out


def test_a_search_goes_on_where_it_was_and_keeps_to_its_grid(settings, monkeypatch):
    tried = []

    def score(settings, tasks, num_episodes):
        tried.append((settings.method.inner_rate, settings.method.inner_decay, num_episodes))
        return settings.method.inner_rate / (1 + settings.method.inner_decay), 0.01

    monkeypatch.setattr(search, "_score", score)
    search.main(settings)
    assert tried[4:] == [(1.0, 0.0, 10)]
    path = pathlib.Path(settings.run_dir, "search.csv")
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:4]))  # the names and three trials
    tried.clear()
    search.main(settings)
    assert tried == [(1.0, 3.0, 2), (1.0, 0.0, 10)]
    assert path.read_text() == whole
    other = dataclasses.replace(settings.data, num_shot=1)
    with pytest.raises(ValueError, match=r"a search on other weights or episodes .*3-way 2-shot"):
        search.main(dataclasses.replace(settings, data=other))
    other = dataclasses.replace(settings.evaluation, grid=["inner_rate=0.1|0.2"])
    with pytest.raises(ValueError, match="search for something else than inner_rate"):
        search.main(dataclasses.replace(settings, evaluation=other))


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("data", "num_shot", 1),
        ("method", "num_evaluation_steps", 9),
        ("method", "statistics_momentum", 0.5),
    ],
)
def test_another_way_to_ask_is_another_search_and_is_found_with_it(
    settings, monkeypatch, group, name, value
):
    monkeypatch.setattr(search, "_score", lambda *_: (0.5, 0.01))
    search.main(settings)
    other = dataclasses.replace(getattr(settings, group), **{name: value})
    other = dataclasses.replace(settings, **{group: other})
    with pytest.raises(ValueError, match="a search on other weights or episodes"):
        search.main(other)
    pathlib.Path(settings.run_dir, "search.csv").unlink()
    search.main(other)
    found = pathlib.Path(settings.run_dir, "found.flags")
    assert found.read_text() == f"--{name}={value}\n--inner_rate=0.00001\n--inner_decay=0\n"
    asked = read_settings(settings.run_dir, f"--flagfile={found}")
    assert getattr(getattr(asked, group), name) == value
    assert asked.method.inner_rate == 0.00001


def test_weights_that_were_trained_anew_are_searched_anew(settings, monkeypatch):
    monkeypatch.setattr(search, "_score", lambda *_: (0.5, 0.01))
    search.main(settings)
    method = build_method(settings, experiment.build_tasks(settings.data))
    method.c_0.assign_add(method.c_0 + 1.0)
    RunCheckpoints(settings.run_dir, method).save_best(0.5, step=0)
    with pytest.raises(ValueError, match="a search on other weights or episodes"):
        search.main(settings)


@pytest.mark.parametrize(
    ("grid", "method", "message"),
    [
        ("num_steps=1|3", {}, "--num_evaluation_steps are those"),
        ("inner_rate=0.1|1", {"learn_inner_rate": True}, "has learned: leave it out"),
    ],
)
def test_what_a_trained_method_does_not_take_is_not_searched(settings, grid, method, message):
    method = dataclasses.replace(settings.method, **method)
    evaluation = EvaluationSettings(grid=[grid])
    pathlib.Path(settings.run_dir, "run.flags").unlink()
    settings = dataclasses.replace(settings, method=method)
    write_settings(settings, settings.run_dir)
    with pytest.raises(ValueError, match=message):
        search.main(dataclasses.replace(settings, evaluation=evaluation))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([], "There is nothing to search"),
        (["inner_rate"], "--grid wants NAME=VALUE|VALUE"),
        (["inner_rate="], "--grid wants NAME=VALUE|VALUE"),
    ],
)
def test_a_grid_that_is_none(grid, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        parse_grid(grid)


@pytest.mark.parametrize(
    ("combination", "message"),
    [
        ((("rate", "1"),), "--grid cannot search 'rate'"),
        ((("hidden_layers", "1"),), "--grid cannot search 'hidden_layers'"),
        ((("inner_rate", "fast"),), "inner_rate cannot be 'fast'"),
        ((("second_order", "false"),), "--grid cannot search 'second_order'"),
        ((("pretrained_run_dir", "runs"),), "--grid cannot search 'pretrained_run_dir'"),
        ((("kernel_scale", "4"),), "--grid cannot search 'kernel_scale'"),
        ((("rule", "adam"),), "rule is one of meta_lstm, sgd, meta_sgd, not 'adam'"),
    ],
)
def test_values_that_are_none(combination, message):
    with pytest.raises(ValueError, match=message):
        with_values(Settings(), combination)
