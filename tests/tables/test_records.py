"""Measured numbers are kept, shown where nothing was run, and not lost by accident."""

import dataclasses
import json

import pytest
from toy_table import FLAGS, PLAIN, ROOT, begun_at, make_run, report, run

from tf_metalstm import reproduce
from tf_metalstm.tables import results, runs
from tf_metalstm.tables.catalogue import TABLES, Run
from tf_metalstm.training.provenance import STARTS


def kept(**changes):
    recipe = runs.recipe_fingerprint(PLAIN.run)
    result = results.Result(0.5, 0.01, 600, "list", "inductive", "90", 1.0, "abc1234", recipe)
    return dataclasses.replace(result, **changes)


def test_what_was_measured_is_recorded_and_shown_where_nothing_was_run(clone, tmp_path, capsys):
    run(tmp_path / "runs", "--only=plain")
    assert not (clone / "docs").exists()
    run(tmp_path / "runs", "--print_only", "--record")
    assert "plain, 5-way 1-shot: recorded 43.21 % (100, best 50)\n" in capsys.readouterr().out
    [commit] = {
        start["commit"]
        for start in json.loads(
            (tmp_path / "runs" / "mini_imagenet" / "plain" / STARTS).read_text()
        )
    }
    assert results.read_records("mini_imagenet") == {
        "plain, 5-way 1-shot": results.Result(
            mean=0.4321,
            interval=0.0123,
            num_episodes=600,
            list_fingerprint="0123456789abcdef",
            batch_norm="inductive (such)",
            updates="100, best 50",
            minutes=12.0,
            commit=commit,
            recipe=runs.recipe_fingerprint(PLAIN.run),
        )
    }
    run(tmp_path / "runs", "--print_only")
    # A row with the same number is shown once.
    assert capsys.readouterr().out.count("| plain |") == 1
    others = tmp_path / "others"
    run(others, "--print_only")
    row = "| plain | 5-way 1-shot | 43.44 +- 0.77 | 43.21 +- 1.23 | recorded | inductive (such) |"
    table = capsys.readouterr().out
    assert f"{row}  | 100, best 50 | 12 min | {commit} |" in table
    assert table.count("| plain |") == 1
    make_run(others / "mini_imagenet" / "plain", 60, best=40)
    run(others, "--print_only")
    table = capsys.readouterr().out
    assert "| not evaluated | here |  |  | 60 of 100, best 40 | 12 min |" in table
    assert row in table  # a recorded row keeps its details beside a new run


def test_a_record_is_of_one_recipe_and_of_so_many_episodes(clone, tmp_path, capsys, monkeypatch):
    results.write_records("mini_imagenet", {"plain, 5-way 1-shot": kept()})
    run(tmp_path, "--print_only")
    assert "| 50.00 +- 1.00 | recorded |" in capsys.readouterr().out
    run(tmp_path, "--print_only", "--num_episodes=100")
    assert "50.00" not in capsys.readouterr().out
    other = dataclasses.replace(PLAIN, run=Run("plain", (*FLAGS, "--hidden_units=3")))
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: [other]})
    run(tmp_path, "--print_only")
    assert "| 50.00 +- 1.00 | recorded, of an earlier recipe |" in capsys.readouterr().out


def test_what_is_replaced_is_said_and_fewer_episodes_replace_nothing(clone, tmp_path, capsys):
    results.write_records("mini_imagenet", {"plain, 5-way 1-shot": kept()})
    make_run(tmp_path / "mini_imagenet" / "plain", 100, best=50)
    report(tmp_path / "mini_imagenet" / "plain", num_episodes=100)
    run(tmp_path, "--print_only", "--record", "--num_episodes=100")
    printed = capsys.readouterr().out
    assert "not recorded, because the record has 600 episodes" in printed
    assert "nothing new to record" in printed
    report(tmp_path / "mini_imagenet" / "plain")
    run(tmp_path, "--print_only", "--record", "--only=tuned")
    assert results.read_records("mini_imagenet") == {"plain, 5-way 1-shot": kept()}
    run(tmp_path, "--print_only", "--record")
    assert "recorded 43.21 % (100, best 50) instead of 50.00 % (90)" in capsys.readouterr().out


def test_a_run_of_another_recipe_is_not_recorded(clone, tmp_path):
    results.write_records("mini_imagenet", {"plain, 5-way 1-shot": kept()})
    run_dir = tmp_path / "mini_imagenet" / "plain"
    make_run(run_dir, 100, best=50, settings=begun_at("elsewhere"))
    report(run_dir)
    run(tmp_path, "--print_only", "--record")
    assert results.read_records("mini_imagenet") == {"plain, 5-way 1-shot": kept()}


def test_records_that_cannot_be_read_are_said_before_anything_is_run(clone, calls, tmp_path):
    (clone / "docs" / "tables").mkdir(parents=True)
    path = clone / "docs" / "tables" / "mini_imagenet.json"
    for broken in ("<<<<<<<", '{"plain": {"mean": 1}}', "[]"):
        path.write_text(broken)
        with pytest.raises(SystemExit, match=r"mini_imagenet.json is no table of records"):
            run(tmp_path)
    assert not calls


def test_nothing_is_recorded_outside_of_a_clone(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="call it in the folder of a clone"):
        run(tmp_path, "--print_only", "--record")


@pytest.mark.parametrize("table", TABLES)
def test_what_is_recorded_is_of_the_table_and_the_results_page_shows_it(table, monkeypatch):
    monkeypatch.chdir(ROOT)
    records = results.read_records(table)
    assert records
    cells = {results.key(cell): cell for cell in TABLES[table]()}
    assert records.keys() <= cells.keys()
    rows = (ROOT / "docs" / "results.md").read_text().splitlines()
    for name, record in records.items():
        value = f"{100 * record.mean:.2f} +- {100 * record.interval:.2f}"
        begins = f"| {cells[name].method} | {cells[name].num_way}-way {cells[name].num_shot}-shot |"
        assert [row for row in rows if row.startswith(begins) and f"| {value} |" in row], name
