"""What a run keeps on disk, so that it can go on exactly where it stopped.

RUN_DIR/checkpoints holds the last few states of the whole run (weights, optimizer,
step, time spent, best validation so far), RUN_DIR/best the weights that were best on
validation. Both are `tf.train.Checkpoint`s: a new one is complete before an old one goes.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

_KEPT = 3


class NotFiniteError(ArithmeticError):
    """The loss or a weight is no longer a number."""


class RunCheckpoints:
    """Reads and writes the state of a run.

    Args:
        run_dir: folder of the run.
        method: the model that is trained.
        optimizer: its optimizer; None for commands that only read weights.

    Attributes:
        step: meta-updates made, a variable.
        minutes: time spent training, a variable.
        best_score: best validation score so far, not a number before the first; a variable.
        best_step: the step that made it, a variable.
    """

    def __init__(
        self,
        run_dir: str | Path,
        method: keras.Model,
        optimizer: keras.optimizers.Optimizer | None = None,
    ):
        self.step = tf.Variable(0, dtype=tf.int64, name="step")
        self.minutes = tf.Variable(0.0, dtype=tf.float64, name="minutes")
        self.best_score = tf.Variable(np.nan, dtype=tf.float64, name="best_score")
        self.best_step = tf.Variable(0, dtype=tf.int64, name="best_step")
        self._method = method
        progress = {
            "step": self.step,
            "minutes": self.minutes,
            "best_score": self.best_score,
            "best_step": self.best_step,
        }
        # By name and not by the tree of Python objects: a checkpoint stays readable when the code
        # around the variables is arranged anew.
        weights = {w.path.replace("/", "."): w.value for w in method.weights}
        run = {**progress, "weights": tf.train.Checkpoint(**weights)}
        if optimizer is not None:
            run["optimizer"] = tf.train.Checkpoint(values=[v.value for v in optimizer.variables])
        self._last = _manager(run, Path(run_dir, "checkpoints"), _KEPT)
        best = {**progress, "weights": tf.train.Checkpoint(**weights)}
        self._best = _manager(best, Path(run_dir, "best"), 1)
        self._reads_optimizer = optimizer is not None

    @property
    def last_path(self) -> str | None:
        """Path of the newest state, or None."""
        return self._last.latest_checkpoint

    def restore(self, which: str = "last") -> bool:
        """Reads the newest state, or the best weights; returns whether there was one.

        Args:
            which: "last" or "best".
        """
        manager = self._best if which == "best" else self._last
        if manager.latest_checkpoint is None:
            return False
        status = manager.checkpoint.restore(manager.latest_checkpoint)
        if which == "last" and self._reads_optimizer:
            status.assert_consumed()
        else:  # the optimizer's state is left on disk
            status.assert_existing_objects_matched().expect_partial()
        return True

    def save(self, step: int, minutes: float) -> None:
        """Writes the state of the run after `step` updates.

        Raises:
            NotFiniteError: a weight is not a number; nothing is written.
        """
        for variable in self._method.trainable_variables:
            if not np.all(np.isfinite(keras.ops.convert_to_numpy(variable))):
                raise NotFiniteError(self.describe_failure(f"{variable.path} is", step))
        self.step.assign(step)
        self.minutes.assign(minutes)
        self._last.save(checkpoint_number=step)

    def save_best(self, score: float, step: int) -> None:
        """Keeps the weights as the best so far on validation, where they had `score`."""
        self.best_score.assign(score)
        self.best_step.assign(step)
        self.step.assign(step)
        self._best.save(checkpoint_number=step)

    def describe_failure(self, what: str, step: int) -> str:
        """Returns the text for a run whose numbers went wrong at `step`."""
        return (
            f"{what} not a finite number at update {step}. The run stopped; the last good "
            f"checkpoint is {self.last_path or 'none, it happened before the first'}. "
            "Lower --learning_rate or --clip_norm and start again in a new --run_dir."
        )


def _manager(contents: dict, folder: Path, kept: int) -> tf.train.CheckpointManager:
    return tf.train.CheckpointManager(
        tf.train.Checkpoint(**contents), str(folder), max_to_keep=kept, checkpoint_name="step"
    )
