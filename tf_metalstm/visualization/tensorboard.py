"""Writes traces and hyper-parameters of a run to TensorBoard."""

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
    WEIGHT_DECAY,
    Curves,
    collect,
    curves_at,
    first_tasks,
    trace_function,
    with_weight_decay,
)

_SMALLEST_DECAY = 2.0**-24  # half the distance of 1 to the next lower float32


def trace_summaries(
    method: Method,
    episodes: tf.data.Dataset,
    num_tasks: int = 4,
    caption: str = "the first validation tasks",
) -> Callable[[int], None] | None:
    """Returns a function that writes the traces of a few fixed tasks, to call after validations.

    Its argument is the number of meta-updates. It calls `write_traces` with the default summary
    writer. The first call traces a graph, which later calls use again.

    Args:
        method: the method; every call uses its present weights.
        episodes: a stream; its first tasks are used, and are read now.
        num_tasks: number of tasks; the cost of a call is proportional to it.
        caption: description of the tasks, for the figure.

    Returns:
        The function; None for a method that makes no updates.
    """
    if not method.num_updates:
        return None
    tasks = first_tasks(episodes, num_tasks)
    trace_of = trace_function(method)

    def write(step: int) -> None:
        traces = with_weight_decay(collect(trace_of, tasks))
        curves = curves_at(traces, method.blocks)
        write_traces(traces, curves, f"{caption}, after {step:,} meta-updates", step)

    return write


def write_traces(traces: Mapping[str, np.ndarray], curves: Curves, caption: str, step: int) -> None:
    """Writes traces with the default summary writer.

    The image trace/figure is figure 3 of the paper. The histograms trace/NAME/update_t, t = 1 ...
    T, such as trace/forget_gates/update_1, are over all tasks and all parameters. The weight decay
    is shown by its logarithm, trace/log10_weight_decay/update_t; where it is 0, by that of 6e-8, as
    a forget gate that is nearer to 1 is 1 in float32.

    Args:
        traces: traces of E tasks, from `collect`.
        curves: curves at the coordinates to draw.
        caption: caption of the figure.
        step: number of meta-updates.
    """
    with tf.device("CPU:0"):  # some of these operations are not deterministic on a GPU
        if curves.values:
            image = figure_image(trace_figure(curves, caption))
            tf.summary.image("trace/figure", image, step=step)
        for name, values in traces.items():
            if name == LOSSES:
                continue
            if name == WEIGHT_DECAY:
                name, values = f"log10_{name}", np.log10(np.maximum(values, _SMALLEST_DECAY))
            for t in range(values.shape[1]):
                tf.summary.histogram(f"trace/{name}/update_{t + 1}", values[:, t], step=step)


def write_hyper_parameters(
    folder: str | Path, values: Mapping[str, Any], run_flags: str, name: str | None = None
) -> None:
    """Writes the settings of a run to TensorBoard: an entry of the HPARAMS tab, and a text.

    No experiment is declared. TensorBoard finds the types, the differences (which it shows first)
    and the metrics from the entries of all runs. A declaration of one run would count for all runs
    and would switch this off.

    Args:
        folder: folder of the run's event files, to which validation/accuracy will be written.
        values: name -> value of the hyper-parameters. Lists become text. None is left out.
        run_flags: the contents of run.flags.
        name: name of the trial in the table of the tab; default: a hash of the values.
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
