"""Tests the text of a table about unfinished runs, diverged runs and episodes."""

import dataclasses

import pytest
from toy_table import PLAIN, make_run, report, run

from tf_metalstm import reproduce
from tf_metalstm.tables import results
from tf_metalstm.tables.catalogue import Cell


def test_an_unfinished_run_says_how_far_it_is(calls, tmp_path, capsys):
    make_run(tmp_path / "mini_imagenet" / "plain", 60, best=50)
    run(tmp_path, "--print_only")
    plain, tuned = capsys.readouterr().out.splitlines()[2:4]
    assert "| not evaluated | here |  |  | 60 of 100, best 50 | 12 min |" in plain
    assert "| not run |" in tuned
    assert not calls


def test_a_run_that_is_shorter_than_the_recipe_is_unfinished(calls, tmp_path, monkeypatch, capsys):
    longer = dataclasses.replace(PLAIN.run, flags=(*PLAIN.run.flags, "--max_steps=200"))
    cell = dataclasses.replace(PLAIN, run=longer)
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: [cell]})
    make_run(tmp_path / "mini_imagenet" / "plain", 100, best=50)
    run(tmp_path, "--print_only")
    assert "| 100 of 200, best 50 | 12 min |" in capsys.readouterr().out
    run(tmp_path)
    assert [command for command, *_ in calls] == ["train", "evaluate"]


def test_what_diverged_is_said(calls, tmp_path, capsys):
    make_run(tmp_path / "mini_imagenet" / "plain", 100, best=50)
    report(tmp_path / "mini_imagenet" / "plain", mean=None, interval=None, num_diverged=7)
    run(tmp_path, "--print_only")
    assert "| 7 of 600 episodes diverged | here |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "flag", "said"),
    [
        ({"split": "validation"}, "--split=validation", "600 fixed validation episodes"),
        ({"checkpoint": "last"}, "--checkpoint=last", "| inductive (such) |  | 100, the last |"),
    ],
)
def test_a_cell_is_evaluated_as_it_asks(asked, flag, said, calls, tmp_path, monkeypatch, capsys):
    cell = Cell("row", 5, 1, "", PLAIN.run, **asked)
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: [cell]})
    run(tmp_path)
    [flags] = [flags for command, _, flags in calls if command == "evaluate"]
    assert flag in flags
    run_dir = tmp_path / "mini_imagenet" / "plain"
    assert results.find_report(PLAIN, run_dir, 600) is None  # the same run, other episodes
    table = capsys.readouterr().out
    assert "| row | 5-way 1-shot | - | 43.21 +- 1.23 | here |" in table
    assert said in table


def test_records_of_the_best_and_of_the_last_weights_are_two():
    last = dataclasses.replace(PLAIN, checkpoint="last")
    assert results.key(last) != results.key(PLAIN)


def test_what_was_searched_says_what_was_found(calls, tmp_path, capsys):
    run(tmp_path, "--only=tuned")
    found = tmp_path / "mini_imagenet" / "tuned" / "found.flags"
    assert "| 100, best 50, found --inner_rate=0.1; from joint, 100" in capsys.readouterr().out
    found.write_text("--data_dir=/elsewhere\n--inner_rate=0.1\n")  # the search found no path
    run(tmp_path, "--print_only")
    assert "best 50, found --inner_rate=0.1; from joint" in capsys.readouterr().out
