"""Keras callbacks: what happens between the updates of a run.

Here an *epoch* of Keras is the stretch of updates between two checkpoints.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
import tqdm

from tf_metalstm.failures import reason
from tf_metalstm.objectives import Objective
from tf_metalstm.training.checkpoints import NotFiniteError, RunCheckpoints
from tf_metalstm.training.devices import agreed
from tf_metalstm.training.interruption import InterruptedRunError, Interruption
from tf_metalstm.training.optimizer import averaged_weights
from tf_metalstm.training.schedule import Schedule

ValidationHook = Callable[[int], None]


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends the run with an error when the loss is not a finite number.

    Args:
        checkpoints: the checkpoints of the run; the error names the last good one.
        start: number of updates made before this call of fit.
    """

    def __init__(self, checkpoints: RunCheckpoints, start: int):
        super().__init__()
        self._checkpoints = checkpoints
        self._step = start

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Checks the loss of the update."""
        self._step += 1
        if not math.isfinite(float(logs["loss"])):
            raise NotFiniteError(self._checkpoints.describe_failure("The loss is", self._step))


class ValidateAverage(keras.callbacks.Callback):
    """Validates the average of the weights, if the optimizer keeps one."""

    def __init__(self) -> None:
        super().__init__()
        self._swap = contextlib.ExitStack()

    def on_test_begin(self, logs: Any = None) -> None:
        """Replaces the weights by their average."""
        self._swap.enter_context(averaged_weights(self.model))

    def on_test_end(self, logs: Any = None) -> None:
        """Puts the trained weights back."""
        self._swap.close()


class ProgressBar(keras.callbacks.Callback):
    """Shows one bar for the whole run, with the time left, and prints a line for every validation.

    Args:
        start: number of updates made before this call of fit.
        max_steps: number of updates of the whole run.
        objective: formats the scores.
    """

    def __init__(self, start: int, max_steps: int, objective: Objective):
        super().__init__()
        self._objective = objective
        self._start, self._max_steps = start, max_steps
        self._bar: Any = None  # is created when training begins

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the bar."""
        if self._bar is not None:
            return  # a run that resumes in the middle of an epoch calls fit twice
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            initial=self._start,
            total=self._max_steps,
            unit="update",
            mininterval=0.2 if on_terminal else 30.0,  # a log file should stay short
            dynamic_ncols=on_terminal,
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar by one update."""
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Shows the loss, and prints the score of a validation."""
        self._bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)
        name = self._objective.score_name
        if f"val_{name}" in logs:
            validation = self._objective.text(logs[f"val_{name}"], logs["val_interval"])
            self._bar.write(
                f"update {self._bar.n}: loss {logs['loss']:.4f}, validation {name} {validation}"
            )

    def close(self) -> None:
        """Closes the bar and leaves it on the screen."""
        if self._bar is not None:
            self._bar.close()


class KeepCheckpoints(keras.callbacks.Callback):
    """Saves the run after every epoch and the best weights after validations; stops in time.

    When a signal asks the run to stop, this callback saves at once, in the middle of an epoch. A
    signal during a validation takes effect when the validation ends. If there are several workers,
    the one that writes files stops the run. The others stop when they notice that it is gone. So no
    worker leaves before the checkpoint is written.

    Args:
        checkpoints: the checkpoints of the run.
        start: number of updates made before this call of fit.
        schedule: the schedule of the run.
        objective: says which of two scores is better.
        interruption: says whether a signal came.
    """

    def __init__(
        self,
        checkpoints: RunCheckpoints,
        start: int,
        schedule: Schedule,
        objective: Objective,
        interruption: Interruption,
    ):
        super().__init__()
        self._objective = objective
        self._interruption = interruption
        self._checkpoints = checkpoints
        self._step = start
        self._schedule = schedule
        self._spent = float(checkpoints.minutes.numpy())
        self._began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stops within an epoch if a signal asks for it."""
        self._step += 1
        if self._step % self._schedule.checkpoint_every:  # else on_epoch_end stops the run
            self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves, and stops if a signal came or the time is up."""
        step = (epoch + 1) * self._schedule.checkpoint_every
        score = float(logs.get(f"val_{self._objective.score_name}", math.nan))
        best = float(self._checkpoints.best_score.numpy())
        if math.isfinite(score) and self._objective.is_better(score, best):
            with averaged_weights(self.model):
                self._checkpoints.save_best(score, step)
        self._checkpoints.save(step, self._minutes())
        self._stop_if_asked()
        limit = self._schedule.max_minutes
        # All workers have to stop after the same update, whatever their clocks say.
        if limit is not None and agreed(self.model.distribute_strategy, self._minutes()) >= limit:
            self.model.stop_training = True

    def _minutes(self) -> float:
        return self._spent + (time.monotonic() - self._began) / 60.0

    def _stop_if_asked(self) -> None:
        finished = self._step >= self._schedule.max_steps
        if self._interruption.signal is None or finished or not self._checkpoints.writes:
            return
        if int(self._checkpoints.step.numpy()) != self._step:
            self._checkpoints.save(self._step, self._minutes())
        raise InterruptedRunError(self._interruption.signal, self._step)


class LogToTensorBoard(keras.callbacks.Callback):
    """Writes loss and scores to TensorBoard, and calls a hook after each validation.

    Args:
        writer: writes TensorBoard's event files.
        steps_per_epoch: number of updates in an epoch.
        on_validation: called with the step after each validation, while `writer` is the default.
    """

    def __init__(
        self,
        writer: tf.summary.SummaryWriter,
        steps_per_epoch: int,
        on_validation: ValidationHook | None = None,
    ):
        super().__init__()
        self._writer = writer
        self._steps_per_epoch = steps_per_epoch
        self._on_validation = on_validation

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the curves; calls the hook if there was a validation."""
        step = (epoch + 1) * self._steps_per_epoch
        with self._writing(step):
            for name, value in logs.items():
                split = "validation" if name.startswith("val_") else "train"
                tf.summary.scalar(f"{split}/{name.removeprefix('val_')}", value)
        if "val_loss" in logs and self._on_validation is not None:
            # The hook sees the same weights as the validation.
            with averaged_weights(self.model), self._writing(step):
                self._on_validation(step)

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        try:
            with self._writer.as_default(step=step):  # flushes at the end
                yield
        except tf.errors.OpError as error:
            raise OSError(
                f"TensorBoard's files of update {step} cannot be written: {reason(error)}. Is the "
                "disk full? Free some space, then run the same command again: it continues."
            ) from error
