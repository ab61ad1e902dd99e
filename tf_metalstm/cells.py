"""What is known of the cells of a table: from the runs on this machine, and from the repository.

A run is read from its folder: how far it is, whether it is the one that the table wants, what
`evaluate` wrote of it. What was measured once is kept in the repository, TABLE.json in `RECORDS`,
so that a table can be read without the hours it took.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tf_metalstm.files import write_atomically
from tf_metalstm.flags import changed_settings, differences, parse_settings, read_settings
from tf_metalstm.settings import GROUPS, Settings
from tf_metalstm.tables import Cell, Run
from tf_metalstm.training.checkpoints import BEST, LAST, best_fingerprint, checkpoint_steps
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
    minutes: of training.
    commit: that it was trained at.
    recipe: fingerprint of the recipe that made it, see `recipe_fingerprint`.
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


class Row(NamedTuple):
    """What a table says of a cell, in words: the value, where it is from, and what made it."""

    value: str
    where: str
    batch_norm: str = ""
    updates: str = ""
    training: str = ""
    commit: str = ""


def key(cell: Cell) -> str:
    """Returns the name of a cell among the records of its table."""
    return f"{cell.run.name}, {cell.num_way}-way {cell.num_shot}-shot"


def in_order(run: Run) -> Iterator[Run]:
    """Yields all runs that a run needs, and then the run itself."""
    for first in run.before:
        yield from in_order(first)
    yield run


def rows(cell: Cell, folder: Path, num_episodes: int, records: dict[str, Result]) -> list[Row]:
    """Returns what there is of a cell.

    Args:
        cell: of the table.
        folder: with the runs of the table on this machine.
        num_episodes: of an evaluation.
        records: of the table.

    Returns:
        A row of the run here, if it has begun, and one of the record, if there is another one of as
        many episodes; where there is neither, one that says so.
    """
    found = []
    state = read_state(folder / cell.run.name)
    if state is not None:
        found.append(_row_here(cell, folder, num_episodes, state))
    recorded = records.get(key(cell))
    if recorded is not None and recorded.num_episodes == num_episodes:
        is_old = recorded.recipe != recipe_fingerprint(cell.run)
        row = _row(recorded, "recorded" + ", of an earlier recipe" * is_old)
        if row[:1] + row[2:] not in [here[:1] + here[2:] for here in found]:
            found.append(row)
    return found or [Row("not run", "")]


def _row_here(cell: Cell, folder: Path, num_episodes: int, state: State) -> Row:
    result = result_here(cell, folder, num_episodes)
    if result is not None:
        return _row(result, "here")
    value = wrong_run(cell.run, folder) or "not evaluated"
    report = find_report(cell, folder / cell.run.name, num_episodes)
    if value == "not evaluated" and report is not None and report["interval"] is None:
        value = f"{report['num_diverged']} of {num_episodes} episodes diverged"
    updates = updates_text(cell.run, folder)
    commits = _commits(folder / cell.run.name)
    return Row(value, "here", "", updates, _minutes(state.minutes), commits)


def _row(result: Result, where: str) -> Row:
    value = f"{100 * result.mean:.2f} +- {100 * result.interval:.2f}"
    minutes = _minutes(result.minutes)
    return Row(value, where, result.batch_norm, result.updates, minutes, result.commit)


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} min"


def result_here(cell: Cell, folder: Path, num_episodes: int) -> Result | None:
    """Returns what a cell's run on this machine has; None where it has no number of the table."""
    run_dir = folder / cell.run.name
    state = read_state(run_dir)
    report = find_report(cell, run_dir, num_episodes)
    if state is None or report is None or report["interval"] is None:
        return None
    if wrong_run(cell.run, folder) or report["step"] != state.best_step:
        return None
    return Result(
        mean=report["mean"],
        interval=report["interval"],
        num_episodes=num_episodes,
        list_fingerprint=report["list_fingerprint"],
        batch_norm=report["batch_norm"],
        updates=updates_text(cell.run, folder),
        minutes=round(state.minutes, 1),
        commit=_commits(run_dir),
        recipe=recipe_fingerprint(cell.run),
    )


def read_records(table: str) -> dict[str, Result]:
    """Returns what the repository has of a table, by `key`.

    Raises:
        ValueError: the file cannot be read.
    """
    path = RECORDS / f"{table}.json"
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {name: Result(**values) for name, values in records.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no table of records ({error}): take back what was changed in it."
        ) from error


def write_records(table: str, records: dict[str, Result]) -> None:
    """Writes what the repository is to have of a table."""
    values = {name: dataclasses.asdict(result) for name, result in sorted(records.items())}
    write_atomically(RECORDS / f"{table}.json", json.dumps(values, indent=1) + "\n")


def recipe_fingerprint(run: Run) -> str:
    """Returns a hash of all that is chosen otherwise than by default in a run and those before it.

    Without what may change while a run goes on, and without the precision.
    """
    text = json.dumps([_chosen(parse_settings(one.flags)) for one in in_order(run)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _chosen(settings: Settings) -> dict[str, Any]:
    plain = Settings()
    return {
        field.name: value
        for name, group in sorted(GROUPS.items())
        for field in sorted(dataclasses.fields(group), key=lambda field: field.name)
        if not field.metadata["may_change"]
        and field.name != "learner_precision"
        and (value := getattr(getattr(settings, name), field.name))
        != getattr(getattr(plain, name), field.name)
    }


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
    settings = read_settings(run_dir)
    wanted = {
        "split": cell.split,
        "num_way": cell.num_way,
        "num_shot": cell.num_shot,
        "num_query": settings.data.num_query,
        "num_episodes": num_episodes,
        "evaluation_seed": 0,
        "checkpoint": "best",
        "step": state.best_step,
    }
    if settings.method.method == "gradient_based":
        wanted["query_normalization"] = settings.method.query_normalization
        steps = settings.method.num_evaluation_steps
        wanted["num_steps"] = settings.method.num_steps if steps is None else steps
    found = run_dir / "found.flags"
    if cell.run.searched and not found.is_file():
        return None
    arguments = [f"--flagfile={found}"] if cell.run.searched else []
    changed = changed_settings(read_settings(run_dir, *arguments))
    whole = {"mean", "interval", "batch_norm", "list_fingerprint"}  # early versions wrote less
    for path in sorted((run_dir / "evaluation").glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        is_wanted = whole <= report.keys() and report.get("changed", {}) == changed
        if is_wanted and all(report.get(name) == value for name, value in wanted.items()):
            return report
    return None


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
    # precision is said beside the updates and makes no other recipe of it.
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
        if other := _other_start(_start_of(run_dir), folder / first.name):
            return other
    return ""


def _other_start(start: dict[str, Any], first_dir: Path) -> str:
    """Returns in what the weights that a run began at are not the best ones of another run now."""
    now = read_state(first_dir)
    if now is None or now.best_step is None or not start:
        return ""
    if start["run"] != first_dir.name:
        return f"it began at {start['run']} and not at {first_dir.name}"
    if start["step"] != now.best_step:
        return (
            f"it began from update {start['step']} of {first_dir.name}, which is at "
            f"{now.best_step} now"
        )
    if start.get("weights") not in (None, best_fingerprint(first_dir)):
        return f"{first_dir.name} was trained anew since it began there"
    return ""


def _start_of(run_dir: Path) -> dict[str, Any]:
    # The last one that says it: an earlier one ended before there was a checkpoint.
    found = [start["pretrained"] for start in _starts(run_dir) if "pretrained" in start]
    return found[-1] if found else {}


def updates_text(run: Run, folder: Path) -> str:
    """Returns how many updates a run and those before it have made, in words.

    With the precision, where it is another than float32.
    """
    run_dir = folder / run.name
    state = read_state(run_dir)
    if state is None:
        return "not here"
    made = f"{state.step:,}"
    if state.step < state.max_steps:
        made += f" of {state.max_steps:,}"
    if state.best_step is not None:
        made += f", best {state.best_step:,}"
    method = read_settings(run_dir).method
    if method.learner_precision != "float32" and method.method != "pixel_nearest_neighbor":
        made += f", {method.learner_precision}"
    for first in run.before:
        made += f"; from {first.name}, {updates_text(first, folder)}"
    return made


def _commits(run_dir: Path) -> str:
    commits = [start["commit"] or "unknown" for start in _starts(run_dir)]
    return ", ".join(dict.fromkeys(commits)) or "unknown"


def _starts(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / STARTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
