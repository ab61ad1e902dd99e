"""Runs what is missing of a table, and prints it beside what was published.

    python -m tf_metalstm.reproduce --table=mini_imagenet --data_dir=DIR

Every run is trained by `train`, searched by `search` where it says so and evaluated by `evaluate`,
each in a process of its own, in RUNS_DIR/TABLE. Broken off, the same command goes on where it was.
A run that is not trained to its end is shown with the updates it has. Beside it stands what was
measured before and is recorded in the repository. The table is also written to
RUNS_DIR/TABLE/table.md. It has to be called where `flags/` is: in a clone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tf_metalstm.cells import (
    Result,
    commits_text,
    find_report,
    in_order,
    key,
    mismatch,
    read_records,
    read_state,
    result_here,
    training_text,
    updates_text,
    write_records,
    wrong_run,
)
from tf_metalstm.files import write_atomically
from tf_metalstm.flags import read_settings
from tf_metalstm.learners.catalogue import PRECISIONS
from tf_metalstm.tables import TABLES, Cell, Run

_COLUMNS = (
    "method",
    "task",
    "published",
    "recorded",
    "here",
    "batch norm",
    "updates",
    "training",
    "commit",
)


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
        records = read_records(options.table)
        if options.record:
            records |= {
                key(cell): result
                for cell in cells
                if not wrong_run(cell.run, folder)
                and (result := result_here(cell, folder, options.num_episodes))
            }
            write_records(options.table, records)
        text = table_text(everything, folder, options.num_episodes, records)
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
    found.add_argument(
        "--learner_precision",
        choices=sorted(PRECISIONS),
        help="of runs that begin: bfloat16 is faster where the processor has instructions for it",
    )
    found.add_argument("--print_only", action="store_true", help="run nothing")
    found.add_argument(
        "--record", action="store_true", help="keep what was measured here in docs/tables"
    )
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
        if wrong := mismatch(run, folder):
            print(f"{folder / run.name} is left alone: {wrong}. Move it away to have it run again.")
            return
        _train(run, folder, places, options)
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


def _train(run: Run, folder: Path, places: list[str], options: argparse.Namespace) -> None:
    run_dir, max_minutes = folder / run.name, options.max_minutes
    state = read_state(run_dir)
    if state is not None and state.step >= state.max_steps:
        return
    if state is not None and max_minutes is not None and state.minutes >= max_minutes:
        return
    extra = [f"--pretrained_run_dir={folder / first.name}" for first in run.before]
    if max_minutes is not None:
        extra.append(f"--max_minutes={max_minutes}")
    precision = options.learner_precision
    if state is not None:
        precision = read_settings(run_dir).method.learner_precision
    if precision is not None:
        extra.append(f"--learner_precision={precision}")
    _call("train", [*run.flags, *places, *extra, f"--run_dir={run_dir}"])


def _call(command: str, flags: list[str]) -> None:
    call = [sys.executable, "-m", f"tf_metalstm.{command}", *flags]
    print(f"$ python {' '.join(call[1:])}", flush=True)
    subprocess.run(call, check=True)


def table_text(
    cells: Sequence[Cell], folder: Path, num_episodes: int, records: Mapping[str, Result]
) -> str:
    """Returns a table in Markdown with one line a cell."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for cell in cells:
        recorded = records.get(key(cell))
        values = {
            "method": cell.method,
            "task": f"{cell.num_way}-way {cell.num_shot}-shot",
            "published": cell.published or "-",
            "recorded": recorded.score if recorded else "-",
        }
        here, details = _here(cell, folder, num_episodes)
        values["here"] = here
        if recorded and not any(details):  # they are of the only number there is
            details = (recorded.batch_norm, recorded.updates, recorded.training, recorded.commit)
        values |= dict(zip(_COLUMNS[-4:], details, strict=True))
        lines.append(f"| {' | '.join(values[name] for name in _COLUMNS)} |")
    splits = "/".join(dict.fromkeys(cell.split for cell in cells))
    note = (
        f"Accuracy in %, {num_episodes} fixed {splits} episodes, 95 % interval. Weights best on "
        "validation; `n of m` says that a run was not trained to its end, and how far it is. What "
        "stands right of a result made here is about that one, else about what is recorded."
    )
    return "\n".join([*lines, "", note, ""])


def _here(cell: Cell, folder: Path, num_episodes: int) -> tuple[str, tuple[str, str, str, str]]:
    """Returns a cell's result on this machine, or what keeps it from having one, and details."""
    run_dir = folder / cell.run.name
    state = read_state(run_dir)
    if state is None:
        return "not run", ("", "", "", "")
    result = result_here(cell, folder, num_episodes)
    details = (
        result.batch_norm if result else "",
        updates_text(state, cell.run, folder),
        training_text(state, run_dir),
        commits_text(run_dir),
    )
    if wrong := wrong_run(cell.run, folder):
        return wrong, details
    return (result.score if result else "not evaluated"), details


if __name__ == "__main__":
    main()
