"""The table: which commands it calls, what it leaves out, what it says of unfinished runs."""

import dataclasses
import json
import pathlib

import pytest
import toy

from tf_metalstm import cells, reproduce
from tf_metalstm.flags import write_settings
from tf_metalstm.settings import MethodSettings, Settings, TrainingSettings
from tf_metalstm.tables import TABLES, Cell, Run
from tf_metalstm.training.checkpoints import RunCheckpoints, best_fingerprint
from tf_metalstm.training.provenance import STARTS, record_start

ROOT = pathlib.Path(__file__).parents[1]
BEFORE = Run("joint", ("--max_steps=100",))
PLAIN = Cell("plain", 5, 1, "43.44 +- 0.77", Run("plain", ("--max_steps=100",)))
TUNED = Cell("tuned", 5, 5, "", Run("tuned", (), before=(BEFORE,), searched=True))


def begun_at(run_dir, precision="float32"):
    return Settings(
        method=MethodSettings(pretrained_run_dir=run_dir, learner_precision=precision),
        training=TrainingSettings(max_steps=100),
    )


def make_run(run_dir, step, best=None, minutes=12.0, settings=None):
    write_settings(settings or begun_at(None), run_dir)
    checkpoints = RunCheckpoints(run_dir, toy.conv_method())
    if best is not None:
        checkpoints.save_best(0.5, best)
    checkpoints.save(step, minutes)


def report(run_dir, **changes):
    values = {
        "split": "test",
        "num_way": 5,
        "num_shot": 1,
        "num_query": 15,
        "num_episodes": 600,
        "evaluation_seed": 0,
        "checkpoint": "best",
        "step": 50,
        "mean": 0.4321,
        "interval": 0.0123,
        "batch_norm": "inductive (such)",
        "list_fingerprint": "0123456789abcdef",
        "query_normalization": "running",
        "num_steps": 5,
    } | changes
    folder = run_dir / "evaluation"
    folder.mkdir(exist_ok=True)
    (folder / f"{len(list(folder.iterdir()))}.json").write_text(json.dumps(values))


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The commands that were called; each does in its run what the real one would leave."""
    called = []

    def call(command, flags):
        values = dict(flag[2:].split("=", 1) for flag in flags)
        run_dir = pathlib.Path(values["run_dir"])
        called.append((command, run_dir.name, flags))
        if command == "train":
            where = values.get("pretrained_run_dir")
            precision = values.get("learner_precision", "float32")
            make_run(run_dir, 100, best=50, settings=begun_at(where, precision))
            first = pathlib.Path(where or "").name
            record_start(run_dir, {"run": first, "step": 50} if first else None)
        elif command == "search":
            (run_dir / "found.flags").write_text("--inner_rate=0.1\n")
        else:
            changed = {"inner_rate": 0.1} if run_dir.name == "tuned" else {}
            report(run_dir, num_shot=int(values["num_shot"]), changed=changed)

    monkeypatch.setattr(reproduce, "_call", call)
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: [PLAIN, TUNED]})
    monkeypatch.chdir(ROOT)
    return called


def run(tmp_path, *arguments):
    reproduce.main(["--table=mini_imagenet", f"--runs_dir={tmp_path}", *arguments])


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


@pytest.mark.parametrize(
    "changes",
    [
        {"step": 40},
        {"query_normalization": "batch"},
        {"num_steps": 10},
        {"num_query": 5},
        {"num_shot": 5},
        {"num_episodes": 100},
        {"split": "validation"},
        {"checkpoint": "last"},
        {"evaluation_seed": 1},
        {"changed": {"inner_rate": 0.5}},
    ],
)
def test_what_was_measured_otherwise_is_not_shown(changes, tmp_path):
    make_run(tmp_path, 60, best=50)
    report(tmp_path, **changes)
    assert cells.find_report(PLAIN, tmp_path, 600) is None
    report(tmp_path)
    assert cells.find_report(PLAIN, tmp_path, 600) is not None


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


def test_an_unfinished_run_says_how_far_it_is(calls, tmp_path, capsys):
    make_run(tmp_path / "mini_imagenet" / "plain", 60, best=50)
    run(tmp_path, "--print_only")
    plain, tuned = capsys.readouterr().out.splitlines()[2:4]
    assert "| not evaluated | here |  | 60 of 100, best 50 | 12 min |" in plain
    assert "| not run |" in tuned
    assert not calls


def test_only_what_the_search_found_counts(calls, tmp_path):
    run(tmp_path, "--only=tuned")
    run_dir = tmp_path / "mini_imagenet" / "tuned"
    assert cells.find_report(TUNED, run_dir, 600)["changed"] == {"inner_rate": 0.1}
    (run_dir / "found.flags").write_text("--inner_rate=0.5\n")
    assert cells.find_report(TUNED, run_dir, 600) is None
    (run_dir / "found.flags").unlink()
    assert cells.find_report(TUNED, run_dir, 600) is None


def test_a_run_from_a_network_that_was_trained_on_is_not_shown(calls, tmp_path, capsys):
    run(tmp_path)
    folder = tmp_path / "mini_imagenet"
    assert "43.21" in capsys.readouterr().out.splitlines()[-5]
    make_run(folder / "joint", 100, best=90)
    calls.clear()
    run(tmp_path)
    printed = capsys.readouterr().out
    wrong = "it began from update 50 of joint, which is at 90 now"
    assert f"{folder / 'tuned'} is left alone: {wrong}. Move it away" in printed
    assert f"| tuned | 5-way 5-shot | - | {wrong} | here |" in printed
    assert not calls


def test_a_run_of_another_recipe_is_not_shown(calls, tmp_path, capsys):
    run_dir = tmp_path / "mini_imagenet" / "plain"
    other = Settings(
        training=TrainingSettings(max_steps=100), method=MethodSettings(hidden_units=3)
    )
    make_run(run_dir, 100, best=50, settings=other)
    report(run_dir)
    run(tmp_path, "--only=plain")
    assert "made by another recipe:--hidden_units: the run has 3, now 20" in capsys.readouterr().out
    assert not calls


def test_a_run_without_a_validation_does_not_end_the_table(calls, tmp_path, capsys):
    make_run(tmp_path / "mini_imagenet" / "plain", 100)
    run(tmp_path)
    assert "plain has not been validated yet" in capsys.readouterr().out
    assert ("evaluate", "tuned") in [call[:2] for call in calls]


def test_the_precision_is_said_and_makes_no_other_recipe(calls, tmp_path, capsys):
    coarse = Settings(
        training=TrainingSettings(max_steps=100),
        method=MethodSettings(learner_precision="bfloat16"),
    )
    make_run(tmp_path / "mini_imagenet" / "joint", 50, best=50, settings=coarse)
    run(tmp_path, "--only=tuned", "--learner_precision=float32")
    [joint, tuned] = [flags for command, _, flags in calls if command == "train"]
    assert "--learner_precision=bfloat16" in joint  # it goes on as it began
    assert "--learner_precision=float32" in tuned
    run_dir = tmp_path / "mini_imagenet" / "plain"
    make_run(run_dir, 100, best=50, settings=coarse)
    report(run_dir)
    run(tmp_path, "--print_only")
    lines = capsys.readouterr().out.splitlines()
    plain, tuned = lines[-5:-3]  # before them: what was called, the first table
    assert "| inductive (such) | 100, best 50, bfloat16 | 12 min |" in plain
    assert "| 100, best 50; from joint, 100, best 50, bfloat16 | 12 min |" in tuned


@pytest.fixture
def clone(calls, tmp_path, monkeypatch):
    """An empty folder that looks like a clone: records are written below it."""
    folder = tmp_path / "clone"
    (folder / "flags" / "recipes").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def kept(**changes):
    recipe = cells.recipe_fingerprint(PLAIN.run)
    result = cells.Result(0.5, 0.01, 600, "list", "inductive", "90", 1.0, "abc1234", recipe)
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
    assert cells.read_records("mini_imagenet") == {
        "plain, 5-way 1-shot": cells.Result(
            mean=0.4321,
            interval=0.0123,
            num_episodes=600,
            list_fingerprint="0123456789abcdef",
            batch_norm="inductive (such)",
            updates="100, best 50",
            minutes=12.0,
            commit=commit,
            recipe=cells.recipe_fingerprint(PLAIN.run),
        )
    }
    run(tmp_path / "runs", "--print_only")
    assert capsys.readouterr().out.count("| plain |") == 1  # the same number twice says no more
    others = tmp_path / "others"
    run(others, "--print_only")
    row = "| plain | 5-way 1-shot | 43.44 +- 0.77 | 43.21 +- 1.23 | recorded | inductive (such) |"
    table = capsys.readouterr().out
    assert f"{row} 100, best 50 | 12 min | {commit} |" in table
    assert table.count("| plain |") == 1
    make_run(others / "mini_imagenet" / "plain", 60, best=40)
    run(others, "--print_only")
    table = capsys.readouterr().out
    assert "| not evaluated | here |  | 60 of 100, best 40 | 12 min |" in table
    assert row in table  # what is recorded keeps its own details beside a run that has begun


def test_a_record_is_of_one_recipe_and_of_so_many_episodes(clone, tmp_path, capsys, monkeypatch):
    cells.write_records("mini_imagenet", {"plain, 5-way 1-shot": kept()})
    run(tmp_path, "--print_only")
    assert "| 50.00 +- 1.00 | recorded |" in capsys.readouterr().out
    run(tmp_path, "--print_only", "--num_episodes=100")
    assert "50.00" not in capsys.readouterr().out
    other = dataclasses.replace(PLAIN, run=Run("plain", ("--max_steps=100", "--hidden_units=3")))
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: [other]})
    run(tmp_path, "--print_only")
    assert "| 50.00 +- 1.00 | recorded, of an earlier recipe |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "is_another"),
    [
        (("--hidden_units=3",), True),
        (("--hidden_units=20",), False),  # said, and the default
        (("--max_steps=7", "--data_dir=elsewhere", "--learner_precision=bfloat16"), False),
    ],
)
def test_what_makes_another_recipe(flags, is_another):
    one, other = (cells.recipe_fingerprint(Run("run", given)) for given in ((), flags))
    assert (one != other) == is_another
    begins = Run("run", (), before=(Run("first", flags),))
    assert cells.recipe_fingerprint(begins) != one


def test_what_is_replaced_is_said_and_fewer_episodes_replace_nothing(clone, tmp_path, capsys):
    cells.write_records("mini_imagenet", {"plain, 5-way 1-shot": kept()})
    make_run(tmp_path / "mini_imagenet" / "plain", 100, best=50)
    report(tmp_path / "mini_imagenet" / "plain", num_episodes=100)
    run(tmp_path, "--print_only", "--record", "--num_episodes=100")
    printed = capsys.readouterr().out
    assert "not recorded, what is recorded has 600 episodes" in printed
    assert "nothing new to record" in printed
    report(tmp_path / "mini_imagenet" / "plain")
    run(tmp_path, "--print_only", "--record", "--only=tuned")
    assert cells.read_records("mini_imagenet") == {"plain, 5-way 1-shot": kept()}
    run(tmp_path, "--print_only", "--record")
    assert "recorded 43.21 % (100, best 50) instead of 50.00 % (90)" in capsys.readouterr().out


def test_a_run_of_another_recipe_is_not_recorded(clone, tmp_path):
    cells.write_records("mini_imagenet", {"plain, 5-way 1-shot": kept()})
    run_dir = tmp_path / "mini_imagenet" / "plain"
    make_run(run_dir, 100, best=50, settings=begun_at("elsewhere"))
    report(run_dir)
    run(tmp_path, "--print_only", "--record")
    assert cells.read_records("mini_imagenet") == {"plain, 5-way 1-shot": kept()}


def test_records_that_cannot_be_read_are_said_before_anything_is_run(clone, calls, tmp_path):
    (clone / "docs" / "tables").mkdir(parents=True)
    path = clone / "docs" / "tables" / "mini_imagenet.json"
    for text in ("<<<<<<<", '{"plain": {"mean": 1}}', "[]"):
        path.write_text(text)
        with pytest.raises(SystemExit, match=r"mini_imagenet.json is no table of records"):
            run(tmp_path)
    assert not calls


def test_nothing_is_recorded_outside_of_a_clone(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="call it in the folder of a clone"):
        run(tmp_path, "--print_only", "--record")


def test_what_diverged_is_said(calls, tmp_path, capsys):
    make_run(tmp_path / "mini_imagenet" / "plain", 100, best=50)
    report(tmp_path / "mini_imagenet" / "plain", mean=None, interval=None, num_diverged=7)
    run(tmp_path, "--print_only")
    assert "| 7 of 600 episodes diverged | here |" in capsys.readouterr().out


def test_a_network_that_was_trained_anew_to_the_same_update_is_another_one(calls, tmp_path, capsys):
    run(tmp_path, "--only=tuned")
    folder = tmp_path / "mini_imagenet"
    start = {"run": "joint", "step": 50, "weights": best_fingerprint(folder / "joint")}
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


@pytest.mark.parametrize("table", TABLES)
def test_what_is_recorded_is_of_the_table_and_the_lab_book_shows_it(table, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    records = cells.read_records(table)
    assert records or table != "mini_imagenet"
    assert records.keys() <= {cells.key(cell) for cell in TABLES[table]()}
    lab_book = (ROOT / "docs" / "reproduction.md").read_text()
    for line in reproduce.table_text(TABLES[table](), tmp_path, 600, records).splitlines():
        assert not records or line in lab_book


def test_a_name_that_no_run_has(calls, tmp_path):
    with pytest.raises(SystemExit, match=r"is in no name of a run: plain, tuned"):
        run(tmp_path, "--only=nothing")


def test_it_wants_a_clone(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="call it in the folder of a clone"):
        run(tmp_path)


def test_a_run_that_begins_at_a_run_that_begins_at_another(calls, tmp_path, monkeypatch):
    middle = Run("middle", ("--max_steps=100",), before=(BEFORE,))
    last = Cell("last", 5, 1, "", Run("last", ("--max_steps=100",), before=(middle,)))
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: [last]})
    run(tmp_path)
    assert [name for _, name, _ in calls] == ["joint", "middle", "last", "last"]
    folder = tmp_path / "mini_imagenet"
    assert f"--pretrained_run_dir={folder / 'joint'}" in calls[1][2]
    assert f"--pretrained_run_dir={folder / 'middle'}" in calls[2][2]
    assert "43.21" in (folder / "table.md").read_text()
    make_run(folder / "joint", 100, best=90)  # the start of the start is another one now
    run(tmp_path, "--print_only")
    table = (folder / "table.md").read_text()
    assert "middle: it began from update 50 of joint, which is at 90 now" in table
    assert "43.21" not in table


@pytest.mark.parametrize(
    ("cell", "where", "message"),
    [
        (PLAIN, "elsewhere", "it began at elsewhere and not at random numbers"),
        (TUNED, None, "it began at random numbers and not at joint"),
    ],
    ids=lambda value: getattr(value, "method", None),
)
def test_a_run_that_began_elsewhere_is_none_of_the_table(calls, tmp_path, cell, where, message):
    folder = tmp_path / "mini_imagenet" / cell.run.name
    make_run(folder, 60, best=50, settings=begun_at(where))
    report(folder, num_shot=cell.num_shot)
    run(tmp_path, f"--only={cell.run.name}")
    assert message in (tmp_path / "mini_imagenet" / "table.md").read_text()
    assert not [name for _, name, _ in calls if name == cell.run.name]


@pytest.mark.parametrize("table", TABLES)
def test_every_run_of_a_table_is_a_recipe_that_is_there(table):
    found = TABLES[table]()
    assert len({(cell.method, cell.num_shot) for cell in found}) == len(found)
    for cell in found:
        for one in cells.in_order(cell.run):
            [flagfile] = one.flags
            assert (ROOT / flagfile.removeprefix("--flagfile=")).is_file()


def test_every_ablation_is_a_row():
    runs = {cell.run.name for cell in TABLES["ablations"]()}
    assert runs == {path.stem for path in (ROOT / "flags" / "ablations").glob("*.flags")}


def test_a_cell_is_evaluated_on_its_split(calls, tmp_path, monkeypatch, capsys):
    cell = Cell("row", 5, 1, "", PLAIN.run, split="validation")
    monkeypatch.setattr(reproduce, "TABLES", {"mini_imagenet": lambda: [cell]})
    run(tmp_path)
    [flags] = [flags for command, _, flags in calls if command == "evaluate"]
    assert "--split=validation" in flags
    run_dir = tmp_path / "mini_imagenet" / "plain"
    assert cells.find_report(cell, run_dir, 600) is None  # what was measured is of test
    report(run_dir, split="validation", mean=0.5555)
    run(tmp_path, "--print_only")
    table = capsys.readouterr().out
    assert "| row | 5-way 1-shot | - | 55.55 +- 1.23 | here |" in table
    assert "600 fixed validation episodes" in table


def test_the_commit_of_each_start_is_kept(tmp_path):
    record_start(tmp_path)
    record_start(tmp_path)
    [start] = json.loads((tmp_path / STARTS).read_text())
    assert start.keys() == {"commit", "tensorflow", "keras"}
    (tmp_path / STARTS).write_text(json.dumps([{**start, "commit": "abc1234"}]))
    record_start(tmp_path)
    assert len(json.loads((tmp_path / STARTS).read_text())) == 2
