"""The outer loop: Keras `fit` over episodes (algorithm 1 of the paper, lines 3 to 17)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.methods.base import Method
from tf_metalstm.training.callbacks import (
    KeepCheckpoints,
    LogToTensorBoard,
    ProgressBar,
    StopWhenNotFinite,
    ValidateAverage,
    ValidationHook,
)
from tf_metalstm.training.checkpoints import RunCheckpoints
from tf_metalstm.training.devices import MultiWorkerStrategy, agreed, is_chief
from tf_metalstm.training.events import drop_events_after
from tf_metalstm.training.history import WriteHistory
from tf_metalstm.training.interruption import InterruptedRunError, Interruption
from tf_metalstm.training.metrics import MeanScore, ScoreInterval
from tf_metalstm.training.optimizer import ClippedAdam
from tf_metalstm.training.schedule import Schedule

# The errors of a collective operation when another worker is gone.
_LOST_WORKER = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


def compile_method(
    method: Method,
    learning_rate: Any = 1e-3,
    clip_norm: float = 0.25,
    clip_value: float = 0.0,
    jit_compile: bool = False,
    weight_average: float = 0.0,
    weight_decay: float = 0.0,
) -> None:
    """Prepares a method for `fit`: Adam on the mean loss of the queries (section 5).

    Args:
        method: the model over episodes.
        learning_rate: learning rate of Adam, a number or a schedule.
        clip_norm: global norm to which the meta-gradient is clipped; 0 for no limit.
        clip_value: absolute value to which each number of the meta-gradient is clipped; 0 for no
            limit.
        jit_compile: whether to compile the step with XLA.
        weight_average: momentum of an exponential average of the weights; 0 for no average. An
            update moves the average by 1 - weight_average of the way. If there is an average, it
            is validated and saved as the best weights.
        weight_decay: weight decay of kernels, multiplied by the learning rate; 0 for no decay.

    Raises:
        ValueError: weight_average is not in [0, 1), or a limit is negative.
    """
    if not 0 <= weight_average < 1:
        raise ValueError(f"weight_average must be in [0, 1), got {weight_average}.")
    further: dict[str, Any] = {"weight_decay": weight_decay or None}
    if weight_average:
        further |= {"use_ema": True, "ema_momentum": weight_average}
    method.compile(
        optimizer=ClippedAdam(learning_rate, clip_norm, clip_value, epsilon=1e-8, **further),
        loss=_TrainingLoss(method),
        metrics=[MeanScore(method.objective), ScoreInterval(method.objective)],
        jit_compile=jit_compile,
    )
    method.optimizer.build(method.trainable_variables)


class _TrainingLoss(keras.losses.Loss):
    """The training loss of a method; a plain function would get outputs without axes of size 1."""

    def __init__(self, method: Method) -> None:
        super().__init__(name="training_loss")
        self._training_loss = method.training_loss

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        # Keras divides the mean of a vector by the number of devices. It does not divide a scalar,
        # so the sum over the devices would be too large. So this is a vector of one number.
        return self._training_loss(y_true, y_pred)[tf.newaxis]


def train(
    method: Method,
    training_episodes: Callable[[int], tf.data.Dataset],
    validation_episodes: Callable[[], tf.data.Dataset],
    schedule: Schedule,
    run_dir: str | Path,
    on_validation: ValidationHook | None = None,
    validate_start: bool = False,
) -> RunCheckpoints:
    """Trains a compiled method; continues from the newest checkpoint of the run.

    Args:
        method: compiled by `compile_method`.
        training_episodes: step -> the stream of episodes that follow that number of updates.
        validation_episodes: returns the fixed list of validation episodes; called when the method
            has the weights that the training begins with.
        schedule: how long to train, and how often to save and to validate.
        run_dir: folder to which everything is written.
        on_validation: called with the step after each validation, with a default summary writer.
        validate_start: whether to validate before the first update too. Then a run that begins at
            trained weights never saves worse weights as its best.

    Returns:
        The checkpoints of the run.

    Raises:
        NotFiniteError: the loss or a weight is no longer a finite number.
        ValueError: there is nothing to train.
        InterruptedRunError: SIGTERM or Ctrl-C came; the run saved a checkpoint of that update.
        OSError: a file cannot be written, no checkpoint can be read, or a worker was lost.
    """
    if schedule.max_steps and not method.trainable_weights:
        raise ValueError("There is nothing to train in this method: set max_steps=0.")
    writes = is_chief(method.distribute_strategy)
    checkpoints = RunCheckpoints(run_dir, method, method.optimizer, writes)
    checkpoints.restore()
    start = int(checkpoints.step.numpy())
    if agreed(method.distribute_strategy, start) != start:
        raise OSError(
            f"The workers of this run read different checkpoints. This worker read update {start}: "
            f"run_dir={run_dir} must be one folder that all workers share."
        )
    validation: tf.data.Dataset | None = None
    if (schedule.max_steps == 0 or validate_start) and checkpoints.last_path is None:
        validation = validation_episodes()
        _keep_the_start(method, validation, checkpoints)
    minutes = float(checkpoints.minutes.numpy())
    in_time = schedule.max_minutes is None or minutes < schedule.max_minutes
    if start >= schedule.max_steps or not in_time:
        return checkpoints
    every = schedule.checkpoint_every
    callbacks: list[keras.callbacks.Callback] = [
        StopWhenNotFinite(checkpoints, start),
        ValidateAverage(),
    ]
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        if writes:
            log_dir = Path(run_dir, "tensorboard")
            drop_events_after(log_dir, start)
            writer = stack.enter_context(_event_writer(log_dir))
            progress = ProgressBar(start, schedule.max_steps, method.objective)
            stack.enter_context(contextlib.closing(progress))
            callbacks += [
                progress,
                LogToTensorBoard(writer, every, on_validation),
                WriteHistory(run_dir, method.objective.score_name, start, every),
            ]
        callbacks.append(
            KeepCheckpoints(checkpoints, start, schedule, method.objective, interruption)
        )
        try:
            if validation is None:
                validation = validation_episodes()
            _fit(method, training_episodes, validation, schedule, checkpoints, callbacks)
        except _LOST_WORKER as error:
            if not isinstance(method.distribute_strategy, MultiWorkerStrategy):
                raise
            if interruption.signal is not None:  # the first worker has stopped before this one
                step = int(checkpoints.step.numpy())
                raise InterruptedRunError(interruption.signal, step) from error
            raise ConnectionError(
                f"A worker of this run was lost. The last checkpoint is {checkpoints.last_path}: "
                "start the same command on all machines again, and the run continues from there."
            ) from error
    return checkpoints


def _keep_the_start(
    method: Method, validation_episodes: tf.data.Dataset, checkpoints: RunCheckpoints
) -> None:
    """Validates a method before its first update, and saves it as last and best checkpoint."""
    logs = method.evaluate(validation_episodes, verbose=0, return_dict=True)
    name = method.objective.score_name
    print(f"update 0: validation {name} {method.objective.text(logs[name], logs['interval'])}")
    checkpoints.save_best(float(logs[name]), step=0)
    checkpoints.save(step=0, minutes=0.0)


@contextlib.contextmanager
def _event_writer(folder: Path) -> Iterator[tf.summary.SummaryWriter]:
    writer = tf.summary.create_file_writer(str(folder))
    try:
        yield writer
    finally:
        # Everything was flushed after each epoch, and an error then was reported.
        with contextlib.suppress(tf.errors.OpError):
            writer.close()


def _fit(
    method: Method,
    training_episodes: Callable[[int], tf.data.Dataset],
    validation_episodes: tf.data.Dataset,
    schedule: Schedule,
    checkpoints: RunCheckpoints,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    every = schedule.checkpoint_every
    start = int(checkpoints.step.numpy())
    for first, last, steps in _stretches(start, schedule.max_steps, every):
        method.fit(
            training_episodes(int(checkpoints.step.numpy())),
            steps_per_epoch=steps,
            initial_epoch=first,
            epochs=last,
            validation_data=validation_episodes,
            validation_freq=schedule.validate_every // every,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
        if method.stop_training:
            return


def _stretches(start: int, stop: int, every: int) -> Iterator[tuple[int, int, int]]:
    """Yields (first epoch, epoch after the last, updates of an epoch) for each call of fit.

    A run that was interrupted in the middle of an epoch first makes the rest of that epoch. The row
    in the history and the point in TensorBoard are then the mean over that rest only.
    """
    epoch, updates_made = divmod(start, every)
    if updates_made:
        yield epoch, epoch + 1, every - updates_made
        epoch += 1
    if epoch * every < stop:
        yield epoch, stop // every, every
