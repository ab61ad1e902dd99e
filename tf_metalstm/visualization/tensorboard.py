"""What TensorBoard shows of a run besides its curves: its traces and its hyper-parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams  # type: ignore[import-untyped]

from tf_metalstm.methods.base import LOSSES, Method
from tf_metalstm.visualization.figures import figure_image, trace_figure
from tf_metalstm.visualization.traces import (
    Curves,
    collect,
    curves_at,
    first_tasks,
    trace_function,
)


def trace_summaries(
    method: Method,
    episodes: tf.data.Dataset,
    num_tasks: int = 4,
    caption: str = "the first validation tasks",
) -> Callable[[int], None] | None:
    """Returns a function that writes the traces of a few fixed tasks, for after validations.

    It takes the number of meta-updates made and writes what `write_traces` writes, under the
    default summary writer. A graph is traced on the first call and used again on later ones.

    Args:
        method: read at every call, so that its present weights are what is shown.
        episodes: of which the first are looked at; they are read now.
        num_tasks: how many; the cost of a call is proportional to it.
        caption: what the tasks are, for the figure.

    Returns:
        None for a method that makes no updates: there is nothing to see.
    """
    if not method.num_updates:
        return None
    tasks = first_tasks(episodes, num_tasks)
    trace_of = trace_function(method)

    def write(step: int) -> None:
        traces = collect(trace_of, tasks)
        curves = curves_at(traces, method.blocks)
        write_traces(traces, curves, f"{caption}, after {step:,} meta-updates", step)

    return write


def write_traces(traces: Mapping[str, np.ndarray], curves: Curves, caption: str, step: int) -> None:
    """Writes traces under the default summary writer.

    The image trace/figure is figure 3 of the paper. The histograms trace/NAME/update_t, t = 1 ...
    T, such as trace/forget_gates/update_1, are over all tasks and all parameters.

    Args:
        traces: of E tasks, as `collect` returned them.
        curves: at the coordinates to draw.
        caption: of the figure.
        step: meta-updates made.
    """
    with tf.device("CPU:0"):  # not all of it is deterministic on a GPU, and there is no hurry
        if curves.values:
            image = figure_image(trace_figure(curves, caption))
            tf.summary.image("trace/figure", image, step=step)
        for name, values in traces.items():
            if name == LOSSES:
                continue
            for t in range(values.shape[1]):
                tf.summary.histogram(f"trace/{name}/update_{t + 1}", values[:, t], step=step)


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
