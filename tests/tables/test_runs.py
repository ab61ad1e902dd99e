"""Tests which run fills a cell of a table, and what is printed about other runs."""

import json
import shutil

import pytest
from toy_table import BEFORE, FLAGS, PLAIN, TUNED, begun_at, make_run, report, run

from tf_metalstm import reproduce
from tf_metalstm.shipped import model_folder
from tf_metalstm.tables import runs
from tf_metalstm.tables.catalogue import Cell, Run
from tf_metalstm.training.checkpoints import fingerprint_of_weights
from tf_metalstm.training.provenance import STARTS, record_start


def test_a_run_from_a_network_that_was_trained_on_is_not_shown(calls, tmp_path, capsys):
    run(tmp_path)
    folder = tmp_path / "mini_imagenet"
    assert "43.21" in capsys.readouterr().out.splitlines()[-5]
    make_run(folder / "joint", 100, best=90)
    calls.clear()
    run(tmp_path)
    printed = capsys.readouterr().out
    wrong = "it began from update 50 of joint, which is at 90 now"
    assert f"{folder / 'tuned'} is skipped: {wrong}. Move it away" in printed
    assert f"| tuned | 5-way 5-shot | - | {wrong} | here |" in printed
    assert not calls


def test_a_run_of_another_recipe_is_not_shown(calls, tmp_path, capsys):
    run_dir = tmp_path / "mini_imagenet" / "plain"
    make_run(run_dir, 100, best=50, settings=begun_at(None, hidden_units=3))
    report(run_dir)
    run(tmp_path, "--only=plain")
    assert "made by another recipe: hidden_units: the run has 3, now 20" in capsys.readouterr().out
    assert not calls


@pytest.mark.parametrize(
    ("cell", "rule", "where", "message"),
    [
        (PLAIN, "meta_lstm", "elsewhere", "it began at elsewhere and not at random weights"),
        (TUNED, "sgd", None, "it began at random weights and not at joint"),
        (TUNED, "meta_lstm", None, "made by another recipe: rule: the run has 'meta_lstm', now"),
    ],
    ids=lambda value: getattr(value, "method", None),
)
def test_a_run_that_began_elsewhere_is_none_of_the_table(
    calls, tmp_path, cell, rule, where, message
):
    folder = tmp_path / "mini_imagenet" / cell.run.name
    make_run(folder, 60, best=50, settings=begun_at(where, rule=rule))
    report(folder, num_shot=cell.num_shot)
    run(tmp_path, f"--only={cell.run.name}")
    assert message in (tmp_path / "mini_imagenet" / "table.md").read_text()
    assert not [name for _, name, _ in calls if name == cell.run.name]


def test_a_run_that_begins_at_a_run_that_begins_at_another(calls, tmp_path, monkeypatch):
    middle = Run("middle", FLAGS, before=(BEFORE,))
    last = Cell("last", 5, 1, "", Run("last", FLAGS, before=(middle,)))
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: [last]})
    run(tmp_path)
    assert [name for _, name, _ in calls] == ["joint", "middle", "last", "last"]
    folder = tmp_path / "mini_imagenet"
    assert f"--pretrained_run_dir={folder / 'joint'}" in calls[1][2]
    assert f"--pretrained_run_dir={folder / 'middle'}" in calls[2][2]
    assert "43.21" in (folder / "table.md").read_text()
    make_run(folder / "joint", 100, best=90)  # "joint" now starts at another checkpoint
    run(tmp_path, "--print_only")
    table = (folder / "table.md").read_text()
    assert "middle: it began from update 50 of joint, which is at 90 now" in table
    assert "43.21" not in table


def test_a_network_that_was_trained_anew_to_the_same_update_is_another_one(calls, tmp_path, capsys):
    run(tmp_path, "--only=tuned")
    folder = tmp_path / "mini_imagenet"
    start = {"run": "joint", "step": 50, "weights": fingerprint_of_weights(folder / "joint")}
    commit = json.loads((folder / "tuned" / STARTS).read_text())[0]["commit"]
    for weights, is_shown in ((start["weights"], True), ("of others", False)):
        starts = [{"commit": commit, "pretrained": start | {"weights": weights}}]
        (folder / "tuned" / STARTS).write_text(json.dumps(starts))
        run(tmp_path, "--print_only")
        table = capsys.readouterr().out
        assert ("43.21" in table) == is_shown
        assert ("joint was trained anew since it began there" in table) != is_shown
    (folder / "tuned" / STARTS).write_text(
        json.dumps([{"commit": commit, "pretrained": start | {"run": "another"}}])
    )
    run(tmp_path, "--print_only")
    assert "it began at another and not at joint" in capsys.readouterr().out
    shutil.rmtree(folder / "joint")
    run(tmp_path, "--print_only")
    assert "it began at another and not at joint" in capsys.readouterr().out


def test_a_trained_model_replaces_a_run_that_is_not_here(calls, tmp_path, monkeypatch, capsys):
    name = "mini_imagenet_trunk_conv4_64"
    first = Run("joint", FLAGS, shipped=name)
    last = Cell("last", 5, 1, "", Run("last", FLAGS, before=(first,)))
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: [last]})
    run(tmp_path)
    assert [name for _, name, _ in calls] == ["last", "last"]
    assert f"--pretrained_run_dir={model_folder(name)}" in calls[0][2]
    printed = capsys.readouterr().out
    assert "43.21" in printed
    assert f"100, best 50; from the model {name}, 50" in printed

    starts = tmp_path / "mini_imagenet" / "last" / STARTS
    [start] = json.loads(starts.read_text())
    start["pretrained"]["weights"] = "of others"
    starts.write_text(json.dumps([start]))
    run(tmp_path, "--print_only")
    assert f"the model {name} was trained anew since it began there" in capsys.readouterr().out

    shutil.rmtree(starts.parent)
    joint = tmp_path / "mini_imagenet" / "joint"
    make_run(joint, 100, best=50)
    calls.clear()
    run(tmp_path)
    assert f"--pretrained_run_dir={joint}" in calls[0][2]


def test_the_precision_is_said_and_makes_no_other_recipe(calls, tmp_path, capsys):
    coarse = begun_at(None, "bfloat16")
    make_run(tmp_path / "mini_imagenet" / "joint", 50, best=50, settings=coarse)
    run(tmp_path, "--only=tuned", "--learner_precision=float32")
    [joint, tuned] = [flags for command, _, flags in calls if command == "train"]
    assert "--learner_precision=bfloat16" in joint  # the run continues with its own options
    assert "--learner_precision=float32" in tuned
    run_dir = tmp_path / "mini_imagenet" / "plain"
    make_run(run_dir, 100, best=50, settings=coarse)
    report(run_dir)
    run(tmp_path, "--print_only")
    lines = capsys.readouterr().out.splitlines()
    plain, tuned = lines[-5:-3]  # the calls come first, then the first table
    assert "| inductive (such) |  | 100, best 50, bfloat16 | 12 min |" in plain
    assert (
        "| 100, best 50, found --inner_rate=0.1; from joint, 100, best 50, bfloat16 | 12 min |"
        in tuned
    )


@pytest.mark.parametrize(
    ("flags", "is_another"),
    [
        (("--hidden_units=3",), True),
        (("--hidden_units=20",), False),  # set to the default
        (("--max_steps=7", "--data_dir=elsewhere", "--learner_precision=bfloat16"), False),
    ],
)
def test_what_makes_another_recipe(flags, is_another):
    one, other = (runs.recipe_fingerprint(Run("run", (*FLAGS, *more))) for more in ((), flags))
    assert (one != other) == is_another
    begins = Run("run", FLAGS, before=(Run("first", (*FLAGS, *flags)),))
    assert runs.recipe_fingerprint(begins) != one


def test_the_commit_of_each_start_is_kept(tmp_path):
    record_start(tmp_path)
    record_start(tmp_path)
    [start] = json.loads((tmp_path / STARTS).read_text())
    assert start.keys() == {"commit", "tensorflow", "keras"}
    (tmp_path / STARTS).write_text(json.dumps([{**start, "commit": "abc1234"}]))
    record_start(tmp_path)
    assert len(json.loads((tmp_path / STARTS).read_text())) == 2
