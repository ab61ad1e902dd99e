"""What a run keeps of its tasks, RUN_DIR/tasks.json, so that it can be used without its data.

The constants of the normalization belong to the run: a trained network expects the numbers that it
was trained on, whatever images it is asked about later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.tasks import Tasks
from tf_metalstm.files import write_atomically

TASKS = "tasks.json"


@dataclass(frozen=True)
class TaskFacts:
    """What a method has to know of the tasks that it was trained on.

    name: of the source.
    kind: of the tasks.
    objective: name of what a task asks for.
    input_shape: of one input.
    num_outputs: the most ways that there are.
    normalization: of pixels; None where inputs are no images.
    training_classes: names of the classes of the training split.
    fingerprint: of the data, pixels included; None where there is none.
    training_way: N of the training episodes; None where tasks have no classes.
    """

    name: str
    kind: str
    objective: str
    input_shape: tuple[int, ...] = ()
    num_outputs: int = 1
    normalization: Normalization | None = None
    training_classes: tuple[str, ...] = ()
    fingerprint: str | None = None
    training_way: int | None = None

    @property
    def num_training_classes(self) -> int:
        """Classes of the training split."""
        return len(self.training_classes)


def facts_of(tasks: Tasks) -> TaskFacts:
    """Returns the facts of tasks whose data are there."""
    return _from_json(tasks.facts())


def write_facts(tasks: Tasks, run_dir: str | Path, begun: bool = True) -> None:
    """Writes what a run has to keep of its tasks, unless the run has begun and it is there.

    Raises:
        ValueError: the run was begun on other data.
    """
    kept = read_facts(run_dir) if begun else None
    now = tasks.facts()
    if kept is None:
        write_atomically(Path(run_dir, TASKS), json.dumps(now, indent=1) + "\n")
        return
    before, fingerprint = kept.fingerprint, now.get("fingerprint")
    if None not in (before, fingerprint) and before != fingerprint:
        raise ValueError(
            f"The data of {tasks.name} are not those that the run in {run_dir} was begun with "
            f"(fingerprint {fingerprint}, not {before}): give the data_dir of then, or another "
            "run_dir."
        )


def read_facts(run_dir: str | Path) -> TaskFacts | None:
    """Returns what a run has kept; None for a run that began before they were."""
    path = Path(run_dir, TASKS)
    if not path.is_file():
        return None
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not what train wrote ({error!r}): take back what was changed in it."
        ) from error


def _from_json(values: dict[str, Any]) -> TaskFacts:
    values = dict(values)
    if values.get("normalization") is not None:
        constants = values["normalization"]
        values["normalization"] = Normalization(
            tuple(constants["mean"]), tuple(constants["deviation"])
        )
    for name in ("input_shape", "training_classes"):
        values[name] = tuple(values.get(name, ()))
    return TaskFacts(**values)
