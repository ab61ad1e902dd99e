"""RUN_DIR/tasks.json: facts about the tasks of a run, so that it can be used without its data.

A trained network needs the normalization of its training for all later images, so the facts have
its constants.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_metalstm.argv import TASKS
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.tasks import Tasks
from tf_metalstm.files import write_atomically


@dataclass(frozen=True)
class TaskFacts:
    """The facts about its training tasks that a trained method needs.

    name: name of the source.
    kind: kind of the tasks.
    objective: name of the objective.
    input_shape: shape of one input.
    num_outputs: largest number of classes in an episode.
    normalization: normalization of pixels; None if inputs are not images.
    training_classes: names of the classes in the training split.
    fingerprint: hash of the data, with the pixels; None if there is none.
    training_way: N of the training episodes; None if the tasks are no episodes.
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
        """Number of classes in the training split."""
        return len(self.training_classes)


def facts_of(tasks: Tasks) -> TaskFacts:
    """Returns the facts about tasks; needs their data."""
    return _from_json(tasks.facts())


def write_facts(tasks: Tasks, run_dir: str | Path, begun: bool = True) -> None:
    """Writes the facts about the tasks of a run, unless the run has begun and has them.

    Raises:
        ValueError: the run began with other data.
    """
    saved = read_facts(run_dir) if begun else None
    now = tasks.facts()
    if saved is None:
        write_atomically(Path(run_dir, TASKS), json.dumps(now, indent=1) + "\n")
        return
    before, fingerprint = saved.fingerprint, now.get("fingerprint")
    if None not in (before, fingerprint) and before != fingerprint:
        raise ValueError(
            f"The run in {run_dir} began with other data of {tasks.name} "
            f"(fingerprint {before}, now {fingerprint}): use the former data_dir, or another "
            "run_dir."
        )


def read_facts(run_dir: str | Path) -> TaskFacts | None:
    """Returns the facts in the folder of a run; None for runs of versions that did not save them.

    Raises:
        ValueError: the file was changed.
    """
    path = Path(run_dir, TASKS)
    if not path.is_file():
        return None
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not as train wrote it ({error!r}): undo the changes in it."
        ) from error


def _from_json(values: dict[str, Any]) -> TaskFacts:
    known = {field.name for field in dataclasses.fields(TaskFacts)}  # sources may add others
    values = {name: value for name, value in dict(values).items() if name in known}
    if values.get("normalization") is not None:
        constants = values["normalization"]
        values["normalization"] = Normalization(
            tuple(constants["mean"]), tuple(constants["deviation"])
        )
    for name in ("input_shape", "training_classes"):
        values[name] = tuple(values.get(name, ()))
    return TaskFacts(**values)
