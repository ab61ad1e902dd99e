"""Makes the missing runs of a published table, and prints the table with the published numbers.

    python -m tf_metalstm.reproduce --table=mini_imagenet --data_dir=DIR

It calls `train`, `search` if the row needs it, and `evaluate` for each run, in separate processes
and in the folder RUNS_DIR/TABLE. After an interruption the same command continues. A run whose
training was stopped is shown with its number of updates. The table also has the recorded numbers of
the repository; --record adds the new ones. The table is also written to RUNS_DIR/TABLE/table.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_metalstm import ctrl_c
from tf_metalstm.argv import FOUND_FLAGS, RUN_FLAGS
from tf_metalstm.catalogue import load_parts
from tf_metalstm.files import given_path, print_any_name, write_atomically
from tf_metalstm.flags import parse_settings, read_settings, with_dashes
from tf_metalstm.learners.base import PRECISIONS
from tf_metalstm.settings import known_options
from tf_metalstm.tables.catalogue import TABLES, Cell, Run
from tf_metalstm.tables.results import (
    Result,
    find_report,
    is_clone,
    key,
    read_records,
    result_here,
    write_records,
)
from tf_metalstm.tables.runs import in_order, mismatch, read_state, still_needed, weights_folder
from tf_metalstm.tables.text import table_text


def main(arguments: Sequence[str] | None = None) -> None:
    """Fills a table and prints it."""
    print_any_name()
    try:
        tables = all_tables(_modules(arguments))
    except ValueError as error:
        sys.exit(with_dashes(f"{type(error).__name__}: {error}"))
    options = parser(tables).parse_args(arguments)
    folder = Path(options.runs_dir, options.table)
    everything = tables[options.table]()
    cells = [
        cell
        for cell in everything
        if not options.only or any(part in cell.run.name for part in options.only)
    ]
    try:
        if not cells:
            names = sorted({cell.run.name for cell in everything})
            raise ValueError(f"--only={options.only} is in no name of a run: {', '.join(names)}.")
        records = read_records(options.table)
        if options.record:
            _check_place()
        if not options.print_only:
            for cell in cells:
                _fill(cell, folder, options)
        if options.record:
            _record(cells, folder, options, records)
        text = table_text(everything, folder, options.num_episodes, records)
        write_atomically(folder / "table.md", text)
    except (OSError, ValueError) as error:
        sys.exit(with_dashes(f"{type(error).__name__}: {error}"))
    except subprocess.CalledProcessError as error:
        sys.exit(f"Stopped: {' '.join(error.cmd[1:])} ended with {error.returncode}, see above.")
    print(text)


def all_tables(modules: Sequence[str]) -> dict[str, Callable[[], list[Cell]]]:
    """Returns the tables by name, also those of further modules.

    Args:
        modules: modules as in --parts. A module with tables has a dict TABLES: name -> function
            that returns the cells.
    """
    load_parts(modules)
    tables = dict(TABLES)
    for name in modules:
        tables |= getattr(sys.modules[name], "TABLES", {})
    return tables


def _modules(arguments: Sequence[str] | None) -> list[str]:
    early = argparse.ArgumentParser(add_help=False)
    early.add_argument("--parts")
    parts = early.parse_known_args(arguments)[0].parts
    return parts.split(",") if parts else []


def parser(tables: Mapping[str, Any]) -> argparse.ArgumentParser:
    """Returns the parser of the command, for tables by name."""
    parser = argparse.ArgumentParser(
        prog="python -m tf_metalstm.reproduce", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--table", choices=sorted(tables), required=True)
    parser.add_argument(
        "--parts", help="Python modules with further parts, PARTS, or tables, TABLES"
    )
    parser.add_argument(
        "--data_dir", type=_as_option("data_dir"), help="folder with the raw files of the images"
    )
    parser.add_argument(
        "--prepared_dir", type=_as_option("prepared_dir"), help="folder for prepared data"
    )
    parser.add_argument(
        "--runs_dir", type=_runs_dir, default="runs/reproduce", help="folder for the runs"
    )
    parser.add_argument(
        "--only", action="append", help="only runs whose name contains this; may be repeated"
    )
    parser.add_argument(
        "--max_minutes", type=_as_option("max_minutes"), help="longest training time of each run"
    )
    parser.add_argument(
        "--num_episodes",
        type=_as_option("num_episodes"),
        default=600,
        help="number of episodes of an evaluation",
    )
    parser.add_argument(
        "--learner_precision",
        choices=sorted(PRECISIONS),
        help="number type of new runs; bfloat16 is faster on processors that have it",
    )
    parser.add_argument(
        "--print_only", action="store_true", help="run nothing, print the recorded numbers"
    )
    parser.add_argument(
        "--record", action="store_true", help="add the numbers measured here to docs/tables"
    )
    return parser


def _runs_dir(text: str) -> Path:
    try:
        return given_path(text, "--runs_dir")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _as_option(name: str) -> Callable[[str], Any]:
    """Returns a function that parses the text of an option as the called commands do."""
    option = known_options()[name]

    def read(text: str) -> Any:
        try:
            value = option.parse(text)
            option.check(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{name} ")) from error
        return value

    return read


def _check_place() -> None:
    if not is_clone():
        raise FileNotFoundError("--record writes to docs/tables: call it in the folder of a clone.")


def _fill(cell: Cell, folder: Path, options: argparse.Namespace) -> None:
    """Runs the missing training, search and evaluation of a cell."""
    places = [
        f"--{name}={value}"
        for name in ("parts", "data_dir", "prepared_dir")
        if (value := getattr(options, name))
    ]
    run_dir = folder / cell.run.name
    for run in in_order(cell.run):
        if wrong := mismatch(run, folder):
            print(f"{folder / run.name} is skipped: {wrong}. Move it away to run it again.")
            return
    for run in still_needed(cell.run, folder):
        _train(run, folder, places, options)
        state = read_state(folder / run.name)
        if state is None or state.best_step is None:
            print(f"{folder / run.name} has not been validated yet: give it more time.")
            return
    task = [f"--num_way={cell.num_way}", f"--num_shot={cell.num_shot}"]
    where = [f"--run_dir={run_dir}", *task, *places]
    flags = []
    if cell.run.searched:
        if not (run_dir / FOUND_FLAGS).is_file():
            _call("search", where)
        flags = [f"--flagfile={run_dir / FOUND_FLAGS}"]
    if find_report(cell, run_dir, options.num_episodes) is None:
        asked = [
            f"--split={cell.split}",
            f"--num_episodes={options.num_episodes}",
            f"--checkpoint={cell.checkpoint}",
        ]
        _call("evaluate", [*where, *flags, *asked])


def _train(run: Run, folder: Path, places: list[str], options: argparse.Namespace) -> None:
    run_dir, max_minutes = folder / run.name, options.max_minutes
    state = read_state(run_dir)
    if state is not None and state.step >= parse_settings(run.flags).training.max_steps:
        return
    if state is not None and max_minutes is not None and state.minutes >= max_minutes:
        return
    extra = [f"--pretrained_run_dir={weights_folder(first, folder)}" for first in run.before]
    if max_minutes is not None:
        extra.append(f"--max_minutes={max_minutes}")
    precision = options.learner_precision
    if (run_dir / RUN_FLAGS).is_file():  # it continues with its own settings
        precision = read_settings(run_dir).get("learner_precision")
    if precision is not None and "learner_precision" in parse_settings(run.flags).values:
        extra.append(f"--learner_precision={precision}")
    _call("train", [*run.flags, *places, *extra, f"--run_dir={run_dir}"])


def _call(command: str, flags: list[str]) -> None:
    call = [sys.executable, "-m", f"tf_metalstm.{command}", *flags]
    print(f"$ python {' '.join(call[1:])}", flush=True)
    with subprocess.Popen(call) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # Ctrl-C reaches both; the run first writes a checkpoint
            process.wait()
            raise
    if code:
        raise subprocess.CalledProcessError(code, call)


def _record(
    cells: Sequence[Cell], folder: Path, options: argparse.Namespace, records: dict[str, Result]
) -> None:
    """Adds the numbers measured here to the records, and prints what happened to each."""
    changed = False
    for cell in cells:
        new, old = result_here(cell, folder, options.num_episodes), records.get(key(cell))
        if new is None or new == old:
            continue
        if old is not None and old.num_episodes > new.num_episodes:
            print(f"{key(cell)}: not recorded, because the record has {old.num_episodes} episodes.")
            continue
        was = "" if old is None else f" instead of {100 * old.mean:.2f} % ({old.updates})"
        print(f"{key(cell)}: recorded {100 * new.mean:.2f} % ({new.updates}){was}")
        records[key(cell)] = new
        changed = True
    if changed:
        write_records(options.table, records)
    else:
        print("There is nothing new to record.")


if __name__ == "__main__":
    with ctrl_c.in_one_sentence():
        main()
