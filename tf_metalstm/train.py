"""Trains a method: python -m tf_metalstm.train --flagfile=... --run_dir=..."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from tf_metalstm import experiment
from tf_metalstm.argv import RUN_FLAGS
from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.exported import exported_settings, is_exported
from tf_metalstm.flags import read_settings, run_command, write_settings
from tf_metalstm.methods.base import Method
from tf_metalstm.options import OptionError
from tf_metalstm.settings import OptimizerOptions, Settings, TrainingOptions
from tf_metalstm.start import check_pretrained, start_method
from tf_metalstm.task_facts import write_facts
from tf_metalstm.training.checkpoints import LAST, checkpoint_steps
from tf_metalstm.training.devices import build_strategy, is_chief
from tf_metalstm.training.interruption import InterruptedRunError
from tf_metalstm.training.lock import lock
from tf_metalstm.training.optimizer import make_learning_rate
from tf_metalstm.training.outer_loop import compile_method, train
from tf_metalstm.training.provenance import record_start
from tf_metalstm.training.schedule import Schedule
from tf_metalstm.visualization.tensorboard import trace_summaries, write_hyper_parameters

# Settings that do not appear among the hyper-parameters in TensorBoard, since they do not change
# what is trained.
_OF_THE_PLACE = {"data_dir", "prepared_dir", "pretrained_run_dir", "max_steps", "max_minutes"}
_OF_THE_PLACE |= {
    "baseline_run_dir",
    "optimizer_dirs",
    "baselines",
    "example_dir",
    "grid",
    "split",
    "num_episodes",
    "checkpoint",
}


def main(settings: Settings) -> None:
    """Trains the run in --run_dir, or continues its training."""
    training = settings.training
    strategy = build_strategy(training.strategy)  # several workers meet before anything else
    _check_devices(strategy, training)
    tasks = build_tasks(settings)
    settings = resolve(settings, tasks)
    schedule = Schedule(
        training.max_steps,
        training.checkpoint_every,
        training.validate_every,
        training.max_minutes,
    )
    run_dir = _run_dir(settings)
    if training.deterministic:
        tf.config.experimental.enable_op_determinism()
    with strategy.scope():
        method = build_method(settings, tasks)
        _check_statistics(method, strategy, settings)
        _check_weights(method, settings)
        start = None
        # The folder alone is no sign of a run: a failed checkpoint leaves an empty folder.
        if not checkpoint_steps(run_dir / LAST):
            start = start_method(method, _pretrained(settings))
            where = "{run}, update {step}".format(**start) if start else "random weights"
            print(f"Starts from {where}.")
        _compile(method, settings)
    validation = experiment.validation_episodes(settings, tasks)
    with contextlib.ExitStack() as stack:
        on_validation = None
        if is_chief(strategy):
            stack.enter_context(lock(run_dir))
            begun = bool(checkpoint_steps(run_dir / LAST))
            write_settings(settings, run_dir, begun)
            write_facts(tasks, run_dir, begun)
            record_start(run_dir, start)
            on_validation = _summaries(settings, method, validation, run_dir)
        print(f"Run: {run_dir}\n{tasks.describe()}")
        try:
            checkpoints = train(
                method,
                lambda step: experiment.training_episodes(
                    settings, tasks, step * training.episodes_per_step, method
                ),
                lambda: experiment.validation_episodes(settings, tasks, method),
                schedule,
                run_dir,
                on_validation,
                validate_start=start is not None,
            )
        except InterruptedRunError as stop:
            print(stop)
            sys.exit(128 + stop.signal)  # the exit code that shells use for this signal
    words = last_words(
        method.objective.score_name,
        float(checkpoints.best_score),
        int(checkpoints.best_step),
        run_dir,
        was_validated=int(checkpoints.step) >= training.validate_every,
    )
    minutes = float(checkpoints.minutes)
    print(f"Trained for {int(checkpoints.step)} updates in {minutes:.1f} minutes. {words}")


def last_words(
    score_name: str, best_score: float, best_step: int, run_dir: Path, was_validated: bool
) -> str:
    """Returns a text with the best validation of a run, and the next command.

    Args:
        score_name: name of the score.
        best_score: best validation score; NaN if there was none that is a finite number.
        best_step: number of updates at that validation.
        run_dir: folder of the run.
        was_validated: whether there was a validation.
    """
    evaluate = f"Next: python -m tf_metalstm.evaluate --run_dir={run_dir}"
    if math.isnan(best_score):
        why = "It ended before its first validation, see --validate_every."
        if was_validated:
            why = (
                f"No validation {score_name} was a finite number: try a lower learning rate in the "
                "inner loop."
            )
        return f"{why}\n{evaluate} --checkpoint=last"
    return f"Best validation {score_name} {best_score:.4f}, after {best_step} updates.\n{evaluate}"


def _compile(method: Method, settings: Settings) -> None:
    optimizer = settings.of(OptimizerOptions)
    compile_method(
        method,
        make_learning_rate(optimizer.learning_rate, optimizer.warmup_steps, optimizer.decay_steps),
        optimizer.clip_norm,
        optimizer.clip_value,
        settings.training.jit_compile,
        optimizer.weight_average,
        optimizer.weight_decay,
    )


def _check_weights(method: Method, settings: Settings) -> None:
    is_frozen = settings.get("trained_layers") == 0 and not method.trainable_weights
    if method.is_trained and is_frozen and settings.training.max_steps:
        raise OptionError(
            "max_steps",
            f"is {settings.training.max_steps}, but nothing in method={settings.method} is "
            f"trained, because the network of learner={settings.get('learner')} is frozen: give "
            "max_steps=0, or a number of trained_layers.",
        )


def _check_devices(strategy: tf.distribute.Strategy, training: TrainingOptions) -> None:
    num_devices = strategy.num_replicas_in_sync
    if training.episodes_per_step % num_devices:
        raise OptionError(
            "episodes_per_step",
            f"is {training.episodes_per_step}, which cannot be divided evenly among "
            f"{num_devices} devices: choose a multiple of {num_devices}.",
        )
    if training.jit_compile and num_devices > 1:
        raise OptionError("jit_compile", "works on one device only: leave it out.")
    if training.jit_compile and training.deterministic:  # Keras would ignore XLA, with a warning
        raise OptionError(
            "jit_compile",
            "needs deterministic=false, because some operations are not deterministic with XLA: "
            "add deterministic=false, or leave jit_compile out.",
        )


def _check_statistics(method: Method, strategy: tf.distribute.Strategy, settings: Settings) -> None:
    if not method.keeps_statistics:
        return
    if strategy.num_replicas_in_sync > 1:
        raise ValueError(
            f"strategy={settings.training.strategy} would collect different running statistics on "
            "each device for this method: train it on one device, without strategy=."
        )
    if settings.of(OptimizerOptions).weight_average:
        raise OptionError(
            "weight_average",
            "averages the weights of this method, but not its running statistics: leave it out.",
        )


def _pretrained(settings: Settings) -> Settings | None:
    run_dir = settings.get("pretrained_run_dir")
    if run_dir is None:
        return None
    if Path(run_dir, RUN_FLAGS).is_file():
        pretrained = read_settings(run_dir)
    elif is_exported(run_dir):
        pretrained = exported_settings(run_dir)
    else:
        raise FileNotFoundError(
            f"pretrained_run_dir={run_dir} has no {RUN_FLAGS} and no exported model: name the "
            "folder of a run, or a folder that export wrote."
        )
    check_pretrained(settings, pretrained)
    return pretrained


def _run_dir(settings: Settings) -> Path:
    if settings.run_dir:
        return Path(settings.run_dir)
    if settings.training.strategy == "multi_worker":
        raise ValueError("strategy=multi_worker needs a run_dir that all machines share.")
    return Path(f"runs/{time.strftime('%Y%m%d-%H%M%S')}")


def _summaries(
    settings: Settings, method: Method, validation: tf.data.Dataset, run_dir: Path
) -> Callable[[int], None] | None:
    """Writes the settings to TensorBoard; returns the hook to call after each validation."""
    folder = run_dir / "tensorboard"
    if not folder.exists():  # a run that continues has written them before
        values = {k: v for k, v in settings.said().items() if k not in _OF_THE_PLACE}
        run_flags = (run_dir / RUN_FLAGS).read_text()
        write_hyper_parameters(folder, values, run_flags, name=run_dir.name)
    return trace_summaries(method, validation)


if __name__ == "__main__":
    run_command(main, continues_a_run=False)
