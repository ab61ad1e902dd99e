"""Tests which commands are called to fill a table."""

import json
import shutil

import pytest
from toy_table import FLAGS, PLAIN, make_run, report, run

from tf_metalstm import reproduce
from tf_metalstm.tables.catalogue import Cell, Run


def test_what_is_missing_is_run_once_and_in_order(calls, tmp_path, capsys):
    run(tmp_path, "--data_dir=images")
    assert [call[:2] for call in calls] == [
        ("train", "plain"),
        ("evaluate", "plain"),
        ("train", "joint"),
        ("train", "tuned"),
        ("search", "tuned"),
        ("evaluate", "tuned"),
    ]
    folder = tmp_path / "mini_imagenet"
    assert all("--data_dir=images" in flags for *_, flags in calls)
    assert f"--pretrained_run_dir={folder / 'joint'}" in calls[3][2]
    assert f"--flagfile={folder / 'tuned' / 'found.flags'}" in calls[5][2]
    of_plain, of_tuned = calls[1][2], calls[5][2]
    assert "--num_way=5" in of_plain
    assert "--num_shot=1" in of_plain
    assert "--num_way=5" in of_tuned
    table = capsys.readouterr().out
    row = "| plain | 5-way 1-shot | 43.44 +- 0.77 | 43.21 +- 1.23 | here | inductive (such) |"
    assert row in table
    assert (folder / "table.md").read_text() in table
    before = len(calls)
    run(tmp_path, "--data_dir=images")
    assert len(calls) == before


def test_what_was_broken_off_goes_on_and_what_it_measured_before_is_not_shown(calls, tmp_path):
    run_dir = tmp_path / "mini_imagenet" / "plain"
    make_run(run_dir, 60, best=40)
    report(run_dir, step=40)
    run(tmp_path, "--only=plain")
    assert [call[:2] for call in calls] == [("train", "plain"), ("evaluate", "plain")]


def test_time_is_limited_for_each_run(calls, tmp_path):
    make_run(tmp_path / "mini_imagenet" / "plain", 60, best=50)
    run(tmp_path, "--only=plain", "--max_minutes=10")
    assert [call[0] for call in calls] == ["evaluate"]


def test_a_part_is_run_and_the_table_is_whole(calls, tmp_path, capsys):
    run(tmp_path, "--only=plain")
    assert {name for _, name, _ in calls} == {"plain"}
    assert "| tuned | 5-way 5-shot | - | not run |" in capsys.readouterr().out


def test_reports_of_early_versions_are_passed_over(calls, tmp_path):
    run(tmp_path, "--only=plain")
    folder = tmp_path / "mini_imagenet" / "plain" / "evaluation"
    [path] = folder.iterdir()
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({name: v for name, v in whole.items() if name != "mean"}))
    run(tmp_path, "--only=plain")
    assert [call[0] for call in calls] == ["train", "evaluate", "evaluate"]


def test_a_run_without_a_validation_does_not_end_the_table(calls, tmp_path, capsys):
    make_run(tmp_path / "mini_imagenet" / "plain", 100)
    run(tmp_path)
    assert "plain has not been validated yet" in capsys.readouterr().out
    assert ("evaluate", "tuned") in [call[:2] for call in calls]


def test_a_name_that_no_run_has(calls, tmp_path):
    with pytest.raises(SystemExit, match=r"is in no name of a run: plain, tuned"):
        run(tmp_path, "--only=nothing")


def test_a_run_that_has_begun_needs_no_more_what_it_began_at(calls, tmp_path, capsys):
    run(tmp_path, "--only=tuned")
    folder = tmp_path / "mini_imagenet"
    shutil.rmtree(folder / "joint")
    shutil.rmtree(folder / "tuned" / "evaluation")
    calls.clear()
    run(tmp_path, "--only=tuned")
    assert [call[:2] for call in calls] == [("evaluate", "tuned")]
    updates = "100, best 50, found --inner_rate=0.1; from joint, update 50, which is not here"
    assert f"| 43.21 +- 1.23 | here | inductive (such) |  | {updates} |" in capsys.readouterr().out
    shutil.rmtree(folder / "tuned")
    calls.clear()
    run(tmp_path, "--only=tuned")
    assert [call[:2] for call in calls[:2]] == [("train", "joint"), ("train", "tuned")]


def test_a_precision_is_said_to_no_run_that_has_none(calls, tmp_path, monkeypatch):
    pixels = Run("pixels", (*FLAGS, "--method=pixel_nearest_neighbor"))
    cells = [PLAIN, Cell("pixels", 5, 1, "", pixels)]
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: cells})
    for _ in range(2):  # a first start and a continuation
        calls.clear()
        run(tmp_path, "--learner_precision=bfloat16")
        for command, name, flags in calls:
            said = "--learner_precision=bfloat16" in flags
            assert said == (command == "train" and name == "plain")
        shutil.rmtree(tmp_path / "mini_imagenet" / "pixels" / "checkpoints")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--num_episodes=0", "num_episodes: must be a whole number at least 1, got 0"),
        ("--num_episodes=-5", "num_episodes: must be a whole number at least 1, got -5"),
        ("--num_episodes=x", "num_episodes: must be a whole number at least 1, got 'x'"),
        ("--max_minutes=0", "max_minutes: must be a number above 0, got 0"),
        ("--max_minutes=nan", "max_minutes: must be a number above 0, got nan"),
    ],
)
def test_numbers_have_the_range_of_the_options_that_they_become(tmp_path, capsys, flag, said):
    with pytest.raises(SystemExit):
        run(tmp_path, flag)
    assert said in capsys.readouterr().err


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = reproduce.parser({"a": None}).parse_args(["--table=a", "--runs_dir=~/r"])
    assert given.runs_dir == tmp_path / "r"
