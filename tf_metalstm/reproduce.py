"""Runs what is missing of a table, and prints it beside what was published.

    python -m tf_metalstm.reproduce --table=mini_imagenet --data_dir=DIR

Every run is trained by `train`, searched by `search` where it says so and evaluated by `evaluate`,
each in a process of its own, in RUNS_DIR/TABLE. Broken off, the same command goes on where it was.
A run that is not trained to its end is shown with the updates it has. The table is also written
to RUNS_DIR/TABLE/table.md. It has to be called where `flags/` is: in a clone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tf_metalstm.files import write_atomically
from tf_metalstm.flags import (
    changed_method_settings,
    differences,
    parse_settings,
    read_settings,
)
from tf_metalstm.tables import TABLES, Cell, Run
from tf_metalstm.training.checkpoints import BEST, LAST, checkpoint_steps
from tf_metalstm.training.provenance import STARTS

_COLUMNS = ("method", "task", "published", "here", "batch norm", "updates", "training", "commit")


class State(NamedTuple):
    """How far a run is.

    step: meta-updates made.
    minutes: of training.
    best_step: update of the weights that are evaluated; None before the first validation.
    max_steps: meta-updates it is to make.
    """

    step: int
    minutes: float
    best_step: int | None
    max_steps: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Fills a table and prints it."""
    options = parser().parse_args(arguments)
    folder = Path(options.runs_dir, options.table)
    everything = TABLES[options.table]()
    cells = [
        cell
        for cell in everything
        if not options.only or any(part in cell.run.name for part in options.only)
    ]
    try:
        if not cells:
            names = sorted({cell.run.name for cell in everything})
            raise ValueError(f"--only={options.only} is in no name of a run: {', '.join(names)}.")
        if not options.print_only:
            _check_place()
            for cell in cells:
                _fill(cell, folder, options)
        text = table_text(everything, folder, options.num_episodes)
        write_atomically(folder / "table.md", text)
    except (OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"Stopped: {' '.join(error.cmd[1:])} ended with {error.returncode}, see above.")
    print(text)


def parser() -> argparse.ArgumentParser:
    """Returns what the command takes."""
    found = argparse.ArgumentParser(
        prog="python -m tf_metalstm.reproduce", description=(__doc__ or "").splitlines()[0]
    )
    found.add_argument("--table", choices=sorted(TABLES), required=True)
    found.add_argument("--data_dir", help="folder with the raw files of the images")
    found.add_argument("--prepared_dir", help="folder for prepared data")
    found.add_argument("--runs_dir", default="runs/reproduce")
    found.add_argument("--only", action="append", help="runs whose name has this; repeatable")
    found.add_argument("--max_minutes", type=float, help="of training of each run, in all")
    found.add_argument("--num_episodes", type=int, default=600)
    found.add_argument("--print_only", action="store_true", help="run nothing")
    return found


def _check_place() -> None:
    if not Path("flags", "recipes").is_dir():
        raise FileNotFoundError(
            "There is no flags/recipes here: call it in the folder of a clone, which holds it."
        )


def _fill(cell: Cell, folder: Path, options: argparse.Namespace) -> None:
    """Trains, searches and evaluates what is missing of a cell."""
    places = [
        f"--{name}={value}"
        for name in ("data_dir", "prepared_dir")
        if (value := getattr(options, name))
    ]
    run_dir = folder / cell.run.name
    for run in in_order(cell.run):
        if wrong := _mismatch(run, folder):
            print(f"{folder / run.name} is left alone: {wrong}. Move it away to have it run again.")
            return
        _train(run, folder, places, options.max_minutes)
        state = read_state(folder / run.name)
        if state is None or state.best_step is None:
            print(f"{folder / run.name} has not been validated yet: give it more time.")
            return
    where = [f"--run_dir={run_dir}", f"--num_shot={cell.num_shot}", *places]
    found = []
    if cell.run.searched:
        if not (run_dir / "found.flags").is_file():
            _call("search", where)
        found = [f"--flagfile={run_dir / 'found.flags'}"]
    if find_report(cell, run_dir, options.num_episodes) is None:
        list_of = [f"--split={cell.split}", f"--num_episodes={options.num_episodes}"]
        _call("evaluate", [*where, *found, *list_of])


def in_order(run: Run) -> Iterator[Run]:
    """Yields all runs that a run needs, and then the run itself."""
    for first in run.before:
        yield from in_order(first)
    yield run


def _train(run: Run, folder: Path, places: list[str], max_minutes: float | None) -> None:
    run_dir = folder / run.name
    state = read_state(run_dir)
    if state is not None and state.step >= state.max_steps:
        return
    if state is not None and max_minutes is not None and state.minutes >= max_minutes:
        return
    extra = [f"--pretrained_run_dir={folder / first.name}" for first in run.before]
    if max_minutes is not None:
        extra.append(f"--max_minutes={max_minutes}")
    _call("train", [*run.flags, *places, *extra, f"--run_dir={run_dir}"])


def _wrong(run: Run, folder: Path) -> str:
    """Returns what keeps a run, or one that it needs, from being that of the table; "" if none."""
    for one in in_order(run):
        if wrong := _mismatch(one, folder):
            return wrong if one is run else f"{one.name}: {wrong}"
    return ""


def _mismatch(run: Run, folder: Path) -> str:
    """Returns in what a run that has begun is not the one of the table; "" where it is."""
    run_dir = folder / run.name
    if read_state(run_dir) is None:
        return ""
    made, recipe = read_settings(run_dir), parse_settings(run.flags)
    # What is left open in a recipe follows from the data. So is where a run begins, see below.
    open_ones = {
        field.name: getattr(made.method, field.name)
        for field in dataclasses.fields(made.method)
        if getattr(recipe.method, field.name) is None
    }
    method = dataclasses.replace(recipe.method, **open_ones)
    different = differences(made, dataclasses.replace(recipe, method=method))
    if different:
        return "made by another recipe:" + ",".join(line.lstrip() for line in different)
    where = made.method.pretrained_run_dir
    if bool(run.before) != bool(where):
        wanted = run.before[0].name if run.before else "random numbers"
        return f"it began at {where or 'random numbers'} and not at {wanted}"
    for first in run.before:
        before, now = _pretrained_step(run_dir), read_state(folder / first.name)
        if now is not None and before not in (None, now.best_step):
            return f"it began from update {before} of {first.name}, which is at {now.best_step} now"
    return ""


def _pretrained_step(run_dir: Path) -> int | None:
    # The last one that says it: an earlier one ended before there was a checkpoint.
    found = [start["pretrained"]["step"] for start in _starts(run_dir) if "pretrained" in start]
    return found[-1] if found else None


def _call(command: str, flags: list[str]) -> None:
    call = [sys.executable, "-m", f"tf_metalstm.{command}", *flags]
    print(f"$ python {' '.join(call[1:])}", flush=True)
    subprocess.run(call, check=True)


def read_state(run_dir: Path) -> State | None:
    """Returns how far a run is; None where it has not begun."""
    last, best = (checkpoint_steps(run_dir / kind) for kind in (LAST, BEST))
    if not last:
        return None
    reader = tf.train.load_checkpoint(str(run_dir / LAST / f"step-{last[0]}"))
    minutes = float(reader.get_tensor("minutes/.ATTRIBUTES/VARIABLE_VALUE"))
    max_steps = read_settings(run_dir).training.max_steps
    return State(last[0], minutes, best[0] if best else None, max_steps)


def find_report(cell: Cell, run_dir: Path, num_episodes: int) -> dict[str, Any] | None:
    """Returns what `evaluate` wrote of the weights that are best now; None where it has not."""
    state = read_state(run_dir)
    if state is None or state.best_step is None:
        return None
    wanted = {
        "split": cell.split,
        "num_way": cell.num_way,
        "num_shot": cell.num_shot,
        "num_episodes": num_episodes,
        "evaluation_seed": 0,
        "checkpoint": "best",
        "step": state.best_step,
    }
    settings = read_settings(run_dir)
    if settings.method.method == "gradient_based":
        wanted["query_normalization"] = settings.method.query_normalization
        steps = settings.method.num_evaluation_steps
        wanted["num_steps"] = settings.method.num_steps if steps is None else steps
    found = run_dir / "found.flags"
    if cell.run.searched and not found.is_file():
        return None
    arguments = [f"--flagfile={found}"] if cell.run.searched else []
    changed = changed_method_settings(read_settings(run_dir, *arguments))
    for path in sorted((run_dir / "evaluation").glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        is_whole = {"mean", "interval", "batch_norm"} <= report.keys()  # early versions' were not
        is_whole = is_whole and report.get("changed", {}) == changed
        if is_whole and all(report.get(name) == value for name, value in wanted.items()):
            return report
    return None


def table_text(cells: Sequence[Cell], folder: Path, num_episodes: int) -> str:
    """Returns a table in Markdown with one line a cell."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for cell in cells:
        run_dir = folder / cell.run.name
        state = read_state(run_dir)
        report = find_report(cell, run_dir, num_episodes)
        values = {
            "method": cell.method,
            "task": f"{cell.num_way}-way {cell.num_shot}-shot",
            "published": cell.published or "-",
            "here": "not run" if state is None else "not evaluated",
            "batch norm": report["batch_norm"] if report else "",
            "updates": "" if state is None else _updates(state, cell.run, folder),
            "training": "" if state is None else f"{state.minutes:.0f} min",
            "commit": "" if state is None else _commits(run_dir),
        }
        if wrong := _wrong(cell.run, folder):
            values["here"] = wrong
        elif report is not None and report["interval"] is not None:
            values["here"] = f"{100 * report['mean']:.2f} +- {100 * report['interval']:.2f}"
        lines.append(f"| {' | '.join(values[name] for name in _COLUMNS)} |")
    splits = "/".join(dict.fromkeys(cell.split for cell in cells))
    note = (
        f"Accuracy in %, {num_episodes} fixed {splits} episodes, 95 % interval. Weights best on "
        "validation; `n of m` says that a run was not trained to its end, and how far it is."
    )
    return "\n".join([*lines, "", note, ""])


def _updates(state: State, run: Run, folder: Path) -> str:
    made = f"{state.step:,}"
    if state.step < state.max_steps:
        made += f" of {state.max_steps:,}"
    if state.best_step is not None:
        made += f", best {state.best_step:,}"
    for first in run.before:
        before = read_state(folder / first.name)
        if before is not None:
            made += f"; from {first.name}, {_updates(before, first, folder)}"
    return made


def _commits(run_dir: Path) -> str:
    commits = [start["commit"] or "unknown" for start in _starts(run_dir)]
    return ", ".join(dict.fromkeys(commits)) or "unknown"


def _starts(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / STARTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


if __name__ == "__main__":
    main()
