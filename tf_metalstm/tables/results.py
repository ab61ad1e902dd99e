"""The numbers of a table's cells, from runs on this machine or from records of the repository.

`evaluate` writes a report of each evaluation to the folder of its run. Measured numbers are kept in
the repository in TABLE.json in `RECORDS`, so that a table can be read without repeating the runs.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_metalstm import shipped
from tf_metalstm.argv import FOUND_FLAGS
from tf_metalstm.files import write_atomically
from tf_metalstm.flags import read_settings
from tf_metalstm.runs import changed_settings
from tf_metalstm.tables.catalogue import Cell
from tf_metalstm.tables.runs import (
    commits_text,
    read_state,
    recipe_fingerprint,
    updates_text,
    wrong_run,
)
from tf_metalstm.training.checkpoints import fingerprint_of_weights

# The folder in a clone.
RECORDS = Path("docs", "tables")


@dataclass(frozen=True)
class Result:
    """One number, and how it was measured.

    mean: mean score of all episodes.
    interval: half width of its 95 % interval.
    num_episodes: number of episodes.
    list_fingerprint: fingerprint of the list of episodes.
    batch_norm: mode of batch norm, in words.
    updates: number of updates, the planned number, and the start, in words.
    minutes: minutes of training.
    commit: commit of the training.
    recipe: fingerprint of the recipe, see `recipe_fingerprint`.
    transductive: mean and half width of the interval on the same list with queries that are
        normalized together; None if this is the mode above, the method has no such mode, or it was
        not measured.
    """

    mean: float
    interval: float
    num_episodes: int
    list_fingerprint: str
    batch_norm: str
    updates: str
    minutes: float
    commit: str
    recipe: str
    transductive: tuple[float, float] | None = None


def key(cell: Cell) -> str:
    """Returns the name of a cell among the records of its table."""
    weights = "" if cell.checkpoint == "best" else f", {cell.checkpoint} weights"
    return f"{cell.run.name}, {cell.num_way}-way {cell.num_shot}-shot{weights}"


def result_here(cell: Cell, folder: Path, num_episodes: int) -> Result | None:
    """Returns the number of a cell's run on this machine; None if it has none for the table."""
    run_dir = folder / cell.run.name
    state = read_state(run_dir)
    report = find_report(cell, run_dir, num_episodes)
    if state is None or report is None or report["interval"] is None:
        return None
    if wrong_run(cell.run, folder) or report["step"] != state.step_of(cell.checkpoint):
        return None
    return Result(
        mean=report["mean"],
        interval=report["interval"],
        num_episodes=num_episodes,
        list_fingerprint=report["list_fingerprint"],
        batch_norm=report["batch_norm"],
        updates=updates_text(cell.run, folder, cell.checkpoint),
        minutes=round(state.minutes, 1),
        commit=commits_text(run_dir),
        recipe=recipe_fingerprint(cell.run),
        transductive=_transductive(report),
    )


def _transductive(report: dict[str, Any]) -> tuple[float, float] | None:
    transductive = report.get("transductive")  # early versions had none
    if transductive is None or transductive["interval"] is None:
        return None
    return transductive["mean"], transductive["interval"]


def find_report(cell: Cell, run_dir: Path, num_episodes: int) -> dict[str, Any] | None:
    """Returns the report about the weights and episodes of a cell; None if there is none."""
    state = read_state(run_dir)
    step = state and state.step_of(cell.checkpoint)
    if step is None:
        return None
    flagfile = run_dir / FOUND_FLAGS
    if cell.run.searched and not flagfile.is_file():
        return None
    settings = read_settings(run_dir, *([f"--flagfile={flagfile}"] if cell.run.searched else []))
    expected = {
        "split": cell.split,
        "num_way": cell.num_way,
        "num_shot": cell.num_shot,
        "num_query": settings.get("num_query"),
        "num_episodes": num_episodes,
        "evaluation_seed": 0,
        "checkpoint": cell.checkpoint,
        "step": step,
    }
    if settings.get("num_steps") is not None:
        steps = settings.get("num_evaluation_steps")
        expected["num_steps"] = settings.get("num_steps") if steps is None else steps
    changed = _as_json(changed_settings(read_settings(run_dir), settings))
    weights = fingerprint_of_weights(run_dir, cell.checkpoint, step)
    whole = {"mean", "interval", "batch_norm", "list_fingerprint"}  # early versions wrote less
    for path in sorted((run_dir / "evaluation").glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        is_wanted = not report.get("other_data") and report.get("weights") in (None, weights)
        is_wanted &= whole <= report.keys() and report.get("changed", {}) == changed
        # None: the method normalizes all images in the same way, whatever this option says.
        is_wanted &= report.get("query_normalization") in (
            None,
            settings.get("query_normalization"),
        )
        if is_wanted and all(report.get(name) == value for name, value in expected.items()):
            return report
    return None


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    """Returns values as they are after reading a report."""
    return json.loads(json.dumps(values))


def is_clone() -> bool:
    """Returns whether the current folder is a clone."""
    return Path("flags", "recipes").is_dir()


def read_records(table: str) -> dict[str, Result]:
    """Returns the records of a table by `key`.

    Raises:
        ValueError: the file cannot be read.
    """
    # In a clone its own records are used, which may be newer than the installed package.
    records = RECORDS if is_clone() else shipped.folder(shipped.TABLES)
    path = records / f"{table}.json"
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {name: _result(values) for name, values in records.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no table of records ({error}): take back what was changed in it."
        ) from error


def _result(values: dict[str, Any]) -> Result:
    if "transductive" in values:
        values = {**values, "transductive": tuple(values["transductive"])}
    return Result(**values)


def _values(result: Result) -> dict[str, Any]:
    values = dataclasses.asdict(result)
    if result.transductive is None:
        del values["transductive"]
    return values


def write_records(table: str, records: dict[str, Result]) -> None:
    """Writes the records of a table."""
    values = {name: _values(result) for name, result in sorted(records.items())}
    write_atomically(RECORDS / f"{table}.json", json.dumps(values, indent=1) + "\n")
