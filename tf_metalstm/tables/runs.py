"""The runs of a table on this machine: their progress, and whether they are those of the table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tf_metalstm.argv import FOUND_FLAGS
from tf_metalstm.exported import exported_fingerprint
from tf_metalstm.flags import parse_settings, read_settings
from tf_metalstm.runs import differences
from tf_metalstm.settings import Settings, known_options, make_settings
from tf_metalstm.shipped import model_folder, model_names
from tf_metalstm.tables.catalogue import Run
from tf_metalstm.training.checkpoints import BEST, LAST, checkpoint_steps, fingerprint_of_weights
from tf_metalstm.training.provenance import commits, read_starts


class State(NamedTuple):
    """The progress of a run.

    step: number of meta-updates.
    minutes: minutes of training.
    best_step: update of the best weights on validation; None before the first validation.
    """

    step: int
    minutes: float
    best_step: int | None

    def step_of(self, checkpoint: str) -> int | None:
        """Returns the update of the `best` or the `last` weights; None if there are none."""
        return self.best_step if checkpoint == "best" else self.step


def in_order(run: Run) -> Iterator[Run]:
    """Yields all runs that a run needs, and then the run itself."""
    for first in run.before:
        yield from in_order(first)
    yield run


def still_needed(run: Run, folder: Path) -> Iterator[Run]:
    """Yields the runs that must start or continue before a run, and then the run itself.

    A run that has begun has the weights of earlier runs in its checkpoints. A run with a trained
    model needs no training.
    """
    if read_state(folder / run.name) is None:
        for first in run.before:
            if weights_folder(first, folder) == folder / first.name:
                yield from still_needed(first, folder)
    yield run


def weights_folder(run: Run, folder: Path) -> Path:
    """Returns the folder that other runs start from: the run, or else its trained model."""
    if read_state(folder / run.name) is None and run.shipped in model_names():
        return model_folder(run.shipped)
    return folder / run.name


def read_state(run_dir: Path) -> State | None:
    """Returns the progress of a run; None if it has not begun."""
    last, best = (checkpoint_steps(run_dir / kind) for kind in (LAST, BEST))
    if not last:
        return None
    reader = tf.train.load_checkpoint(str(run_dir / LAST / f"step-{last[0]}"))
    minutes = float(reader.get_tensor("minutes/.ATTRIBUTES/VARIABLE_VALUE"))
    return State(last[0], minutes, best[0] if best else None)


def wrong_run(run: Run, folder: Path) -> str:
    """Returns why a run, or one that it needs, is not that of the table; "" if it is."""
    for one in in_order(run):
        if wrong := mismatch(one, folder):
            return wrong if one is run else f"{one.name}: {wrong}"
    return ""


def mismatch(run: Run, folder: Path) -> str:
    """Returns how a run that has begun differs from that of the table; "" if it does not."""
    run_dir = folder / run.name
    if read_state(run_dir) is None:
        return ""
    settings, recipe = read_settings(run_dir), parse_settings(run.flags)
    different = {
        name: values
        for name, values in differences(settings, recipe).items()
        # Values that a recipe leaves open follow from the data. The start is checked below.
        # The precision is shown beside the updates and does not make another recipe.
        if name != "learner_precision" and recipe.get(name) is not None
    }
    if different:
        words = (f"{name}: the run has {a!r}, now {b!r}" for name, (a, b) in different.items())
        return f"made by another recipe: {', '.join(words)}"
    where = settings.get("pretrained_run_dir")
    if bool(run.before) != bool(where):
        start = run.before[0].name if run.before else "random weights"
        return f"it began at {where or 'random weights'} and not at {start}"
    for first in run.before:
        if other := _other_start(_start_of(run_dir), first, folder / first.name):
            return other
    return ""


def _other_start(start: dict[str, Any], first: Run, first_dir: Path) -> str:
    """Returns how the initial weights differ from the present best weights of the other run."""
    if not start:
        return ""
    if start["run"] == first.shipped:
        is_same = first.shipped not in model_names() or (
            start["weights"] == exported_fingerprint(model_folder(first.shipped))
        )
        return "" if is_same else f"the model {first.shipped} was trained anew since it began there"
    if start["run"] != first_dir.name:
        return f"it began at {start['run']} and not at {first_dir.name}"
    now = read_state(first_dir)
    if now is None or now.best_step is None:
        return ""
    if start["step"] != now.best_step:
        return (
            f"it began from update {start['step']} of {first_dir.name}, which is at "
            f"{now.best_step} now"
        )
    if start.get("weights") not in (None, fingerprint_of_weights(first_dir)):
        return f"{first_dir.name} was trained anew since it began there"
    return ""


def _start_of(run_dir: Path) -> dict[str, Any]:
    # The last entry with a start counts: earlier starts ended before the first checkpoint.
    starts = [start["pretrained"] for start in read_starts(run_dir) if "pretrained" in start]
    return starts[-1] if starts else {}


def updates_text(run: Run, folder: Path, checkpoint: str = "best") -> str:
    """Returns the number of updates of a run and those before it, in words.

    The text has the precision if it is not float32, and the result of a search.

    Args:
        run: a run of a table.
        folder: folder with the runs of the table.
        checkpoint: `best` or `last` weights of the run. Earlier runs always use `best`.
    """
    run_dir = folder / run.name
    state = read_state(run_dir)
    if state is None:
        return "not here"
    text = f"{state.step:,}"
    planned = parse_settings(run.flags).training.max_steps  # the run may have been shortened
    if state.step < planned:
        text += f" of {planned:,}"
    if checkpoint == "last":
        text += ", the last"
    elif state.best_step is not None:
        text += f", best {state.best_step:,}"
    precision = read_settings(run_dir).get("learner_precision")
    if precision not in (None, "float32"):
        text += f", {precision}"
    if run.searched and (run_dir / FOUND_FLAGS).is_file():
        text += f", found {' '.join(_found_flags(run, run_dir))}"
    for first in run.before:
        start = _start_of(run_dir)
        if start and start["run"] == first.shipped:
            text += f"; from the model {first.shipped}, {start['step']:,}"
        elif read_state(folder / first.name) is None and start:
            text += f"; from {start['run']}, update {start['step']:,}, which is not here"
        else:
            text += f"; from {first.name}, {updates_text(first, folder)}"
    return text


def _found_flags(run: Run, run_dir: Path) -> list[str]:
    searched = {part.partition("=")[0] for part in parse_settings(run.flags).evaluation.grid}
    flags = (run_dir / FOUND_FLAGS).read_text(encoding="utf-8").split()
    return [flag for flag in flags if flag[2:].partition("=")[0] in searched]


def commits_text(run_dir: Path) -> str:
    """Returns the commits at which a run was started and continued, in words."""
    return ", ".join(commits(run_dir)) or "unknown"


def recipe_fingerprint(run: Run) -> str:
    """Returns a hash of all values that are not defaults, in a run and those before it.

    Values that may change while a run continues, and the precision, do not count.
    """
    text = json.dumps([_chosen(parse_settings(one.flags)) for one in in_order(run)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _chosen(settings: Settings) -> dict[str, Any]:
    """Returns the values that are not defaults and may not change while a run continues."""
    plain = make_settings(settings.chosen)
    known = known_options()
    families = {k: v for k, v in settings.chosen.items() if v != make_settings().chosen.get(k)}
    options = {
        name: value
        for name, value in settings.values.items()
        if not known[name].may_change
        and name != "learner_precision"
        and value != plain.values[name]
    }
    return dict(sorted({**families, **options}.items()))
