"""What TensorBoard shows of a run besides its curves: the gates and the hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams  # type: ignore[import-untyped]

from tf_metalstm.adaptation import Trajectory
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.visualization.figures import figure_image, gate_figure
from tf_metalstm.visualization.gates import (
    GateCurves,
    choose_coordinates,
    collect,
    curves_at,
    first_supports,
    trajectory_function,
)


def gate_summaries(
    method: GradientBasedMethod,
    episodes: tf.data.Dataset,
    num_episodes: int = 4,
    caption: str = "the first validation episodes",
) -> Callable[[int], None]:
    """Returns a function that writes the gates of a few fixed episodes, for after validations.

    It takes the number of meta-updates made and writes what `write_gates` writes, under the
    default summary writer. A graph is traced on the first call and used again on later ones.
    Of a method that makes no updates nothing is written.

    Args:
        method: read at every call, so that its present weights are what is shown.
        episodes: of which the first are looked at; they are read now.
        num_episodes: how many; the cost of a call is proportional to it.
        caption: what the episodes are, for the figure.
    """
    supports = first_supports(episodes, num_episodes)
    coordinates = choose_coordinates(method.learner.parameter_blocks)
    trajectory_of = trajectory_function(method)

    def write(step: int) -> None:
        if method.evaluation_loop.num_steps < 1:
            return
        trajectory = collect(trajectory_of, supports)
        curves = curves_at(trajectory, coordinates)
        write_gates(trajectory, curves, f"{caption}, after {step:,} meta-updates", step)

    return write


def write_gates(trajectory: Trajectory, curves: GateCurves, caption: str, step: int) -> None:
    """Writes gates under the default summary writer.

    The image gates/figure is figure 3 of the paper. The histograms gates/forget/update_t and
    gates/input/update_t, t = 1 ... T, are over all episodes and all parameters.

    Args:
        trajectory: of E episodes, as `collect` returned it.
        curves: at the coordinates to draw.
        caption: of the figure.
        step: meta-updates made.
    """
    with tf.device("CPU:0"):  # not all of it is deterministic on a GPU, and there is no hurry
        tf.summary.image("gates/figure", figure_image(gate_figure(curves, caption)), step=step)
        for name, gates in (("forget", trajectory.forget), ("input", trajectory.input)):
            for t in range(gates.shape[1]):
                tf.summary.histogram(f"gates/{name}/update_{t + 1}", gates[:, t], step=step)


def write_hyper_parameters(
    folder: str | Path, values: Mapping[str, Any], run_flags: str, name: str | None = None
) -> None:
    """Writes what a run was started with: an entry of the HPARAMS tab, and a text.

    No experiment is declared. From the entries of all runs TensorBoard finds out by itself the
    types, what differs (which it then shows first) and the metrics; a declaration would be taken
    from one run for all of them, and turns this off.

    Args:
        folder: of the run's event files, where validation/accuracy will be written.
        values: of the hyper-parameters by name. Lists become text; None, a setting that was not
            made, stays empty.
        run_flags: the contents of run.flags.
        name: the trial that this is in the tab's table; default: a hash of the values.
    """
    known = {key: _plain(value) for key, value in values.items() if value is not None}
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step=0):
        hparams.hparams(known, trial_id=name)
        tf.summary.text("run.flags", "".join(f"    {line}\n" for line in run_flags.splitlines()))
    writer.close()


def _plain(value: Any) -> bool | int | float | str:
    if isinstance(value, bool | int | float | str):
        return value
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
