"""A table in Markdown, with measured and published numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tf_metalstm.tables.catalogue import Cell
from tf_metalstm.tables.results import Result, find_report, key, result_here
from tf_metalstm.tables.runs import (
    State,
    commits_text,
    read_state,
    recipe_fingerprint,
    updates_text,
    wrong_run,
)

_COLUMNS = (
    "method",
    "task",
    "published",
    "measured",
    "where",
    "batch norm",
    "transductive",
    "updates",
    "training",
    "commit",
)


class Row(NamedTuple):
    """The texts of a row: the value, its origin, and how it was made.

    `transductive` is the value on the same list with queries that are normalized together.
    """

    value: str
    where: str
    batch_norm: str = ""
    transductive: str = ""
    updates: str = ""
    training: str = ""
    commit: str = ""


def table_text(
    cells: Sequence[Cell], folder: Path, num_episodes: int, records: dict[str, Result]
) -> str:
    """Returns a table in Markdown with a line for each run here and for each record."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for cell in cells:
        task, published = f"{cell.num_way}-way {cell.num_shot}-shot", cell.published or "-"
        for row in rows(cell, folder, num_episodes, records):
            lines.append(f"| {' | '.join((cell.method, task, published, *row))} |")
    splits = "/".join(dict.fromkeys(cell.split for cell in cells))
    note = (
        f"Accuracy in %, {num_episodes} fixed {splits} episodes, 95 % interval. Weights best on "
        "validation, or the last where `updates` says so; `n of m` says that a run was not trained "
        "to its end, and how far it is. "
        "Where batch norm has a transductive mode besides the one named, the same list was "
        "answered in it too. "
        "`here` is a run on this machine, `recorded` what was measured before it."
    )
    return "\n".join([*lines, "", note, ""])


def rows(cell: Cell, folder: Path, num_episodes: int, records: dict[str, Result]) -> list[Row]:
    """Returns the rows of a cell.

    Args:
        cell: a cell of the table.
        folder: folder with the runs of the table on this machine.
        num_episodes: number of episodes of an evaluation.
        records: records of the table.

    Returns:
        A row for the run here if it has begun, and a row for the record if it differs and has as
        many episodes. If there is neither, a row that says so.
    """
    table_rows = []
    state = read_state(folder / cell.run.name)
    if state is not None:
        table_rows.append(_row_here(cell, folder, num_episodes, state))
    recorded = records.get(key(cell))
    if recorded is not None and recorded.num_episodes == num_episodes:
        is_old = recorded.recipe != recipe_fingerprint(cell.run)
        row = _row(recorded, "recorded" + ", of an earlier recipe" * is_old)
        if row[:1] + row[2:] not in [other[:1] + other[2:] for other in table_rows]:
            table_rows.append(row)
    return table_rows or [Row("not run", "")]


def _row_here(cell: Cell, folder: Path, num_episodes: int, state: State) -> Row:
    result = result_here(cell, folder, num_episodes)
    if result is not None:
        return _row(result, "here")
    value = wrong_run(cell.run, folder) or "not evaluated"
    report = find_report(cell, folder / cell.run.name, num_episodes)
    if value == "not evaluated" and report is not None and report["interval"] is None:
        value = f"{report['num_diverged']} of {num_episodes} episodes diverged"
    updates = updates_text(cell.run, folder, cell.checkpoint)
    commits = commits_text(folder / cell.run.name)
    return Row(value, "here", updates=updates, training=_minutes(state.minutes), commit=commits)


def _row(result: Result, where: str) -> Row:
    return Row(
        _percent(result.mean, result.interval),
        where,
        result.batch_norm,
        "" if result.transductive is None else _percent(*result.transductive),
        result.updates,
        _minutes(result.minutes),
        result.commit,
    )


def _percent(mean: float, interval: float) -> str:
    return f"{100 * mean:.2f} +- {100 * interval:.2f}"


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} min"
