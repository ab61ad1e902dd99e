"""The checkpoints of a run, from which it continues exactly where it stopped.

RUN_DIR/checkpoints holds the last few states of the whole run: weights, optimizer, step, time
spent, best validation so far. RUN_DIR/best holds the weights with the best validation score. Both
are `tf.train.Checkpoint`s. A new checkpoint is complete before an old one is deleted. A checkpoint
that cannot be read is skipped with a warning, and the one before it is read.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_metalstm.failures import reason

_KEPT = 3
_UNFINISHED = "unfinished-"  # at the beginning of the names of files that are being written

LAST, BEST = "checkpoints", "best"  # folders of a run


def checkpoint_steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, the newest first."""
    names = (index.stem for index in folder.glob("step-*.index") if index.is_file())
    matches = (re.fullmatch(r"step-(\d+)", name) for name in names)
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def fingerprint_of_weights(
    run_dir: str | Path, which: str = "best", step: int | None = None
) -> str | None:
    """Returns a hash of the best or the last weights of a run; None if there are none.

    Args:
        run_dir: folder of the run.
        which: "best" or "last".
        step: number of updates of the weights; None for the newest.
    """
    folder = Path(run_dir, BEST if which == "best" else LAST)
    steps = checkpoint_steps(folder) if step is None else [step]
    files = sorted(folder.glob(f"step-{steps[0]}.data-*")) if steps else []
    if not files:
        return None
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


class NotFiniteError(ArithmeticError):
    """The loss or a weight is no longer a finite number."""


class OtherWeightsError(ValueError):
    """The weights in a checkpoint have other names or shapes than those of the method."""


class RunCheckpoints:
    """Reads and writes the state of a run.

    Args:
        run_dir: folder of the run.
        method: the model that is trained.
        optimizer: its optimizer; None for commands that only read weights.
        writes: whether this process writes files; only one of several workers does.

    Attributes:
        step: number of meta-updates made, a variable.
        minutes: time spent training, a variable.
        best_score: best validation score so far, a variable; NaN before the first validation.
        best_step: the step of that score, a variable.
        writes: the argument `writes`.
    """

    def __init__(
        self,
        run_dir: str | Path,
        method: keras.Model,
        optimizer: keras.optimizers.Optimizer | None = None,
        writes: bool = True,
    ):
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        self.minutes = tf.Variable(0.0, dtype=tf.float64, name="minutes")
        self.best_score = tf.Variable(np.nan, dtype=tf.float64, name="best_score")
        self.best_step = tf.Variable(0, dtype=tf.int64, name="best_step")
        self._method = method
        self.writes = writes
        progress = {
            "step": self.step,
            "minutes": self.minutes,
            "best_score": self.best_score,
            "best_step": self.best_step,
        }
        # Weights are saved by name, not by the tree of Python objects. So a checkpoint stays
        # readable when the code around the variables is rearranged.
        weights = {w.path.replace("/", "."): w.value for w in method.weights}
        run: dict[str, Any] = dict(progress)
        # The random states of dropout layers. They have no names here, because their names count
        # all layers of the process.
        if states := [v.value for v in method.variables if "seed_generator" in v.path]:
            run["random"] = tf.train.Checkpoint(values=states)
        if optimizer is not None:
            run["optimizer"] = tf.train.Checkpoint(values=[v.value for v in optimizer.variables])
        self._last = _Folder(run, weights, Path(run_dir, LAST), _KEPT)
        self._best = _Folder(progress, weights, Path(run_dir, BEST), 1)

    @property
    def last_path(self) -> Path | None:
        """Path of the newest checkpoint, or None."""
        return next(iter(self._last.paths()), None)

    def restore(self, which: str = "last") -> bool:
        """Reads the newest state or the best weights; returns whether there was a checkpoint.

        Args:
            which: "last" or "best".

        Raises:
            OSError: there are checkpoints, but none of them can be read.
            OtherWeightsError: the checkpoint is of another method, or of one of another size.
        """
        return (self._best if which == "best" else self._last).read()

    def save(self, step: int, minutes: float) -> None:
        """Writes the state of the run after `step` updates.

        Raises:
            NotFiniteError: a weight is not a finite number; nothing is written.
            OSError: the checkpoint cannot be written; older checkpoints are unchanged.
        """
        self._check_finite(step)
        self.step.assign(step)
        self.minutes.assign(minutes)
        self._write(self._last, step)

    def save_best(self, score: float, step: int) -> None:
        """Saves the weights as the best so far; `score` is their validation score.

        Raises:
            NotFiniteError: a weight is not a finite number; nothing is written.
            OSError: the checkpoint cannot be written.
        """
        self._check_finite(step)
        self.best_score.assign(score)
        self.best_step.assign(step)
        self.step.assign(step)
        self._write(self._best, step)

    def _check_finite(self, step: int) -> None:
        for variable in self._method.trainable_variables:
            if not np.all(np.isfinite(keras.ops.convert_to_numpy(variable))):
                raise NotFiniteError(self.describe_failure(f"{variable.path} is", step))

    def _write(self, folder: _Folder, step: int) -> None:
        if not self.writes:
            return
        try:
            folder.write(step)
        except (OSError, tf.errors.OpError) as error:
            raise OSError(
                f"The checkpoint of update {step} cannot be written to {folder.path}: "
                f"{reason(error)}. The last checkpoint is {self.last_path or 'none'}. Is the disk "
                "full, or the folder write-protected? Correct that, then run the same command "
                "again: it continues."
            ) from error

    def describe_failure(self, what: str, step: int) -> str:
        """Returns the error message for a number that is not finite.

        Args:
            what: subject and verb of the message, as "The loss is".
            step: the update in which it was noticed.
        """
        return (
            f"{what} not a finite number at update {step}. The run stopped. The last good "
            f"checkpoint is {self.last_path or 'none: this was before the first one'}. "
            "Lower learning_rate or clip_norm and start again in a new run_dir."
        )


class _Folder:
    """The last few checkpoints of one kind, each in the files step-N.index and step-N.data-*.

    The files in the folder say which checkpoints exist. `tf.train.CheckpointManager` instead keeps
    a list beside the files. If that list is lost, it behaves as if the run had never begun.
    """

    def __init__(
        self, others: Mapping[str, Any], weights: Mapping[str, tf.Variable], path: Path, kept: int
    ):
        self.path = path
        self._weights = weights
        self._checkpoint = tf.train.Checkpoint(**others, weights=tf.train.Checkpoint(**weights))
        self._kept = kept

    def paths(self) -> list[Path]:
        """Returns the paths of the checkpoints without file endings, the newest first."""
        return [self.path / f"step-{step}" for step in checkpoint_steps(self.path)]

    def read(self) -> bool:
        """Reads the newest checkpoint that can be read; returns whether there was any."""
        paths = self.paths()
        for path in paths:
            try:
                status = self._checkpoint.read(str(path))
            # TensorFlow raises IndexError where a file is too short.
            except (tf.errors.OpError, RuntimeError, IndexError) as error:
                logging.warning("%s cannot be read and is skipped: %s.", path, reason(error))
                continue
            except ValueError as error:  # a weight in the file has another shape
                raise self._other_weights(path) from error
            # The file may hold more than a command needs, for example the optimizer's state.
            try:
                status.assert_existing_objects_matched().expect_partial()
            except AssertionError as error:
                raise self._other_weights(path) from error
            return True
        if not paths:
            return False
        if self.paths()[:1] != paths[:1]:
            return self.read()  # the training is running and has written a new one meanwhile
        raise OSError(
            f"No checkpoint in {self.path} can be read, all {len(paths)} are damaged: restore one "
            "from a backup, try the other kind (checkpoint=best or last), or train again in "
            "another run_dir."
        )

    def _other_weights(self, path: Path) -> OtherWeightsError:
        """Returns the error for a checkpoint whose weights do not fit the method."""
        in_file = dict(tf.train.list_variables(str(path)))
        differ = []
        for name, variable in self._weights.items():
            key = name.replace(".", "..")  # as a checkpoint writes names
            kept = in_file.get(f"weights/{key}/.ATTRIBUTES/VARIABLE_VALUE")
            shape = variable.shape.as_list()
            if kept != shape:
                problem = "is missing" if kept is None else f"has the shape {kept}, not {shape}"
                differ.append(f"{name} {problem}")
        return OtherWeightsError(
            f"{path} does not fit the method: {differ[0] if differ else 'its structure differs'}. "
            "The options that set the sizes of the networks must be those of the training; "
            "run.flags has them."
        )

    def write(self, step: int) -> None:
        """Writes a checkpoint; then deletes the oldest, and those of later steps.

        Checkpoints of later steps exist if the run restarted from an older one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._checkpoint.write(str(self.path / f"{_UNFINISHED}step-{step}"))
            # The index file gets its name last, so a checkpoint with an index is complete.
            files = self.path.glob(f"{_UNFINISHED}step-{step}.*")
            for file in sorted(files, key=lambda file: file.suffix == ".index"):
                file.replace(file.with_name(file.name.removeprefix(_UNFINISHED)))
        finally:  # also those of a process that was killed
            self._remove_unfinished()
        paths = self.paths()
        position = paths.index(self.path / f"step-{step}")
        for path in paths[:position] + paths[position + self._kept :]:
            for file in self.path.glob(f"{path.name}.*"):
                file.unlink()

    def _remove_unfinished(self) -> None:
        for path in self.path.glob(f"{_UNFINISHED}*"):
            if path.is_dir():  # TensorFlow's folder of parts
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
