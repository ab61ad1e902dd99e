"""What is known of the cells of a table: from the runs on this machine, and from the repository.

A run is read from its folder: how far it is, whether it is the one that the table wants, what
`evaluate` wrote of it. What was measured once is kept in the repository, TABLE.json in `RECORDS`,
so that a table can be read without the hours it took.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
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
from tf_metalstm.tables import Cell, Run
from tf_metalstm.training.checkpoints import BEST, LAST, checkpoint_steps
from tf_metalstm.training.provenance import STARTS

# In a clone.
RECORDS = Path("docs", "tables")


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


@dataclass(frozen=True)
class Result:
    """One number, and what it is a number of.

    mean: of the scores of all episodes.
    interval: half width of its 95 % interval.
    num_episodes: how many.
    list_fingerprint: which.
    batch_norm: the mode, in words.
    updates: how many were made, of how many, and from where, in words.
    training: minutes, and the precision where it is another than float32.
    commit: that it was trained at.
    """

    mean: float
    interval: float
    num_episodes: int
    list_fingerprint: str
    batch_norm: str
    updates: str
    training: str
    commit: str

    @property
    def score(self) -> str:
        """As it is printed, in %."""
        return f"{100 * self.mean:.2f} +- {100 * self.interval:.2f}"


def in_order(run: Run) -> Iterator[Run]:
    """Yields all runs that a run needs, and then the run itself."""
    for first in run.before:
        yield from in_order(first)
    yield run


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


def result_here(cell: Cell, folder: Path, num_episodes: int) -> Result | None:
    """Returns what a cell's run in a folder of runs has; None where it is not evaluated."""
    run_dir = folder / cell.run.name
    report, state = find_report(cell, run_dir, num_episodes), read_state(run_dir)
    if report is None or state is None or report["interval"] is None:
        return None
    return Result(
        mean=report["mean"],
        interval=report["interval"],
        num_episodes=num_episodes,
        list_fingerprint=report["list_fingerprint"],
        batch_norm=report["batch_norm"],
        updates=updates_text(state, cell.run, folder),
        training=training_text(state, run_dir),
        commit=commits_text(run_dir),
    )


def read_records(table: str, folder: Path = RECORDS) -> dict[str, Result]:
    """Returns what the repository has of a table, by `key`."""
    path = folder / f"{table}.json"
    if not path.is_file():
        return {}
    records = json.loads(path.read_text(encoding="utf-8"))
    return {name: Result(**values) for name, values in records.items()}


def write_records(table: str, records: dict[str, Result], folder: Path = RECORDS) -> Path:
    """Writes what the repository is to have of a table; returns where."""
    path = folder / f"{table}.json"
    values = {name: dataclasses.asdict(result) for name, result in sorted(records.items())}
    write_atomically(path, json.dumps(values, indent=1) + "\n")
    return path


def key(cell: Cell) -> str:
    """Returns the name of a cell among the records of its table."""
    return f"{cell.run.name}, {cell.num_way}-way {cell.num_shot}-shot"


def training_text(state: State, run_dir: Path) -> str:
    """Returns how long a run was trained, in words."""
    precision = read_settings(run_dir).method.learner_precision
    return f"{state.minutes:.0f} min" + (f", {precision}" if precision != "float32" else "")


def wrong_run(run: Run, folder: Path) -> str:
    """Returns what keeps a run, or one that it needs, from being that of the table; "" if none."""
    for one in in_order(run):
        if wrong := mismatch(one, folder):
            return wrong if one is run else f"{one.name}: {wrong}"
    return ""


def mismatch(run: Run, folder: Path) -> str:
    """Returns in what a run that has begun is not the one of the table; "" where it is."""
    run_dir = folder / run.name
    if read_state(run_dir) is None:
        return ""
    made, recipe = read_settings(run_dir), parse_settings(run.flags)
    # What is left open in a recipe follows from the data. So is where a run begins, see below. The
    # precision is said beside the result and makes no other recipe of it.
    open_ones = {
        field.name: getattr(made.method, field.name)
        for field in dataclasses.fields(made.method)
        if getattr(recipe.method, field.name) is None or field.name == "learner_precision"
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


def updates_text(state: State, run: Run, folder: Path) -> str:
    """Returns how many updates a run and those before it have made, in words."""
    made = f"{state.step:,}"
    if state.step < state.max_steps:
        made += f" of {state.max_steps:,}"
    if state.best_step is not None:
        made += f", best {state.best_step:,}"
    for first in run.before:
        before = read_state(folder / first.name)
        if before is not None:
            made += f"; from {first.name}, {updates_text(before, first, folder)}"
    return made


def commits_text(run_dir: Path) -> str:
    """Returns the commits that a run was started at."""
    commits = [start["commit"] or "unknown" for start in _starts(run_dir)]
    return ", ".join(dict.fromkeys(commits)) or "unknown"


def _starts(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / STARTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
