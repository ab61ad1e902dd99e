"""Tests the search: its trials, its files, continuation, and that it finds the better value."""

import csv
import pathlib

import pytest
import toy
from fresh_run import fresh_run

from tf_metalstm import search
from tf_metalstm.construction import build_method, build_tasks
from tf_metalstm.flags import read_settings, write_settings
from tf_metalstm.search import parse_grid, with_values
from tf_metalstm.settings import make_settings
from tf_metalstm.training.checkpoints import RunCheckpoints

GRID = ("inner_rate=0.00001|1.0", "inner_decay=0|3")


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(toy.ToySource, "asked", [])
    said = {"rule": "sgd", "num_steps": 3, "learner": "mlp"}
    settings, _ = fresh_run(
        toy.settings(tmp_path / "run", **said, validation_episodes=10, grid=GRID)
    )
    yield settings
    assert set(toy.ToySource.asked) <= {"validation"}


def rows(settings):
    with pathlib.Path(settings.run_dir, "search.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_round_has_a_quarter_of_the_combinations_and_more_of_the_list(settings, monkeypatch):
    tried = []

    def score(settings, num_episodes):
        tried.append((num_episodes, settings.get("inner_rate")))
        return -settings.get("inner_rate"), 0.01

    monkeypatch.setattr(search, "_score", score)
    grid = (f"inner_rate={'|'.join(str(n) for n in range(20, 0, -1))}",)
    all_of_them, quarter, sixteenth = 20, 5, 2
    for episodes, rounds in (
        (50, {5: all_of_them, 10: quarter, 50: sixteenth}),
        (10, {2: all_of_them, 10: quarter}),
        (2, {2: all_of_them}),
    ):
        tried.clear()
        pathlib.Path(settings.run_dir, "search.csv").unlink(missing_ok=True)
        search.main(settings.changed(validation_episodes=episodes, grid=grid))
        expected = [(n, rate) for n, kept in rounds.items() for rate in range(1, kept + 1)]
        assert sorted(tried) == sorted(expected)
        found = pathlib.Path(settings.run_dir, "found.flags").read_text()
        assert found == "--inner_rate=1\n"


def test_the_better_combination_is_found(settings, capsys):
    search.main(settings.changed(grid=("inner_rate=0.00001|1.0", "inner_decay=3")))
    assert [row["episodes"] for row in rows(settings)] == ["2", "2", "10"]
    best = rows(settings)[-1]
    assert best["inner_rate"] == "1.0"  # the other rate changes nothing
    found = pathlib.Path(settings.run_dir, "found.flags").read_text().splitlines()
    assert found == [f"--inner_rate={best['inner_rate']}", f"--inner_decay={best['inner_decay']}"]
    assert float(best["mean"]) > 0.45  # chance is a third
    assert "Next: python -m tf_metalstm.evaluate" in capsys.readouterr().out


def test_a_search_goes_on_where_it_was_and_keeps_to_its_grid(settings, monkeypatch):
    tried = []

    def score(settings, num_episodes):
        rate, decay = settings.get("inner_rate"), settings.get("inner_decay")
        tried.append((rate, decay, num_episodes))
        return rate / (1 + decay), 0.01

    monkeypatch.setattr(search, "_score", score)
    search.main(settings)
    assert tried[4:] == [(1.0, 0.0, 10)]
    path = pathlib.Path(settings.run_dir, "search.csv")
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:4]))  # the header and three trials
    tried.clear()
    search.main(settings)
    assert tried == [(1.0, 3.0, 2), (1.0, 0.0, 10)]
    assert path.read_text() == whole
    with pytest.raises(ValueError, match=r"a search with other weights or episodes .*3-way 2-shot"):
        search.main(settings.changed(num_shot=1))
    with pytest.raises(ValueError, match="search of other options than inner_rate"):
        search.main(settings.changed(grid=("inner_rate=0.1|0.2",)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_way", 2),
        ("num_shot", 1),
        ("num_evaluation_steps", 9),
        ("statistics_momentum", 0.5),
        ("query_normalization", "support"),
    ],
)
def test_another_way_to_ask_is_another_search_and_is_found_with_it(
    settings, monkeypatch, name, value
):
    monkeypatch.setattr(search, "_score", lambda *_: (0.5, 0.01))
    search.main(settings)
    other = settings.changed(**{name: value})
    with pytest.raises(ValueError, match="a search with other weights or episodes"):
        search.main(other)
    pathlib.Path(settings.run_dir, "search.csv").unlink()
    search.main(other)
    found = pathlib.Path(settings.run_dir, "found.flags")
    assert found.read_text() == f"--{name}={value}\n--inner_rate=0.00001\n--inner_decay=0\n"
    asked = read_settings(settings.run_dir, f"--flagfile={found}")
    assert asked.get(name) == value
    assert asked.get("inner_rate") == 0.00001


def test_what_was_found_for_the_last_weights_is_of_them(settings, monkeypatch):
    monkeypatch.setattr(search, "_score", lambda *_: (0.5, 0.01))
    method = build_method(settings, build_tasks(settings))
    RunCheckpoints(settings.run_dir, method).save(step=0, minutes=0.0)
    search.main(settings.changed(checkpoint="last"))
    found = pathlib.Path(settings.run_dir, "found.flags")
    asked = read_settings(settings.run_dir, f"--flagfile={found}")
    assert asked.evaluation.checkpoint == "last"


def test_weights_that_were_trained_anew_are_searched_anew(settings, monkeypatch):
    monkeypatch.setattr(search, "_score", lambda *_: (0.5, 0.01))
    search.main(settings)
    method = build_method(settings, build_tasks(settings))
    method.c_0.assign_add(method.c_0 + 1.0)
    RunCheckpoints(settings.run_dir, method).save_best(0.5, step=0)
    with pytest.raises(ValueError, match="a search with other weights or episodes"):
        search.main(settings)


@pytest.mark.parametrize(
    ("grid", "said", "message"),
    [
        (
            "num_steps=1|3",
            {},
            "^num_steps is the number of updates in training, .* set num_evaluation_steps",
        ),
        ("inner_rate=0.1|1", {"learn_inner_rate": True}, "^inner_rate is .* learned: leave it out"),
    ],
)
def test_what_a_trained_method_does_not_take_is_not_searched(settings, grid, said, message):
    pathlib.Path(settings.run_dir, "run.flags").unlink()
    settings = settings.changed(**said)
    write_settings(settings, settings.run_dir)
    with pytest.raises(ValueError, match=message):
        search.main(settings.changed(grid=(grid,)))
    assert not pathlib.Path(settings.run_dir, "search.csv").exists()


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([], "There is nothing to search"),
        (["inner_rate"], "grid must be NAME=VALUE|VALUE"),
        (["inner_rate="], "grid must be NAME=VALUE|VALUE"),
    ],
)
def test_a_grid_that_is_none(grid, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        parse_grid(grid)


@pytest.mark.parametrize(
    ("combination", "message"),
    [
        ((("rate", "1"),), "grid cannot search 'rate'"),
        ((("hidden_layers", "1"),), "grid cannot search 'hidden_layers'"),
        ((("hidden_units", "1"),), "grid cannot search 'hidden_units'"),  # of another rule
        ((("num_shot", "1"),), "grid cannot search 'num_shot'"),
        ((("inner_rate", "fast"),), "grid: inner_rate must be a number .*, got 'fast'"),
        ((("inner_rate", "-1"),), "grid: inner_rate must be .*, got -1"),
        ((("second_order", "false"),), "grid cannot search 'second_order'"),
        ((("recompute", "true"),), "grid cannot search 'recompute'"),
        ((("pretrained_run_dir", "runs"),), "grid cannot search 'pretrained_run_dir'"),
        ((("kernel_scale", "4"),), "grid cannot search 'kernel_scale'"),
        ((("rule", "adam"),), "grid cannot search 'rule'"),
        ((("query_normalization", "none"),), "query_normalization must be one of running, support"),
    ],
)
def test_values_that_are_none(combination, message):
    with pytest.raises(ValueError, match=message):
        with_values(make_settings({"rule": "sgd", "learner": "mlp"}), combination)
