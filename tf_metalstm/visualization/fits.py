"""Figures of functions that a learner fits: before, after the first and after the last update.

As figure 2 of MAML (Finn et al., ICML 2017), they show the true function, the support points, and
the learner at theta_0, theta_1 and theta_T. There is a row for each method and a column for each
episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from tf_metalstm.episode import Support
from tf_metalstm.methods.few_shot import FewShotMethod
from tf_metalstm.visualization.words import name_in_figure

_COLORS = ("#56b4e9", "#009e73", "#d55e00")


class Fit(NamedTuple):
    """A function of one number, and the outputs of a learner.

    x: arguments, [B].
    truth: values of the function, [B].
    support: the support points, [K, 2].
    after: number of updates -> outputs of the learner, [B].
    """

    x: np.ndarray
    truth: np.ndarray
    support: np.ndarray
    after: dict[int, np.ndarray]


def fit(method: FewShotMethod, support: Support, x: np.ndarray, truth: np.ndarray) -> Fit:
    """Returns the outputs of a method for many arguments, after it adapted to points of a function.

    Args:
        method: a method that was trained on functions of one number.
        support: arguments and values, [K, 1] each.
        x: arguments, [B].
        truth: values of the function at x, [B].
    """
    arguments = tf.constant(x[:, np.newaxis], method.compute_dtype)
    after = {}
    for num_steps in sorted({0, 1, method.num_updates or 0}):
        # The method itself is called, so the figure has its real answers before the first update.
        adapted, _ = method.adapt_and_trace(support, num_steps=tf.constant(num_steps))
        after[num_steps] = method.query_outputs(adapted, arguments).numpy()[:, 0]
    return Fit(x, truth, np.concatenate([support.inputs, support.labels], axis=1), after)


def fit_figure(rows: Mapping[str, Sequence[Fit]], caption: str) -> Figure:
    """Returns a figure of fits, with a row for each method.

    Args:
        rows: name of the method -> its fits of the same functions.
        caption: one line that describes the data.
    """
    num_columns = len(next(iter(rows.values())))
    figure = Figure(figsize=(8.0, 0.9 + 2.3 * len(rows)), dpi=100, layout="constrained")
    figure.supxlabel(caption, fontsize=8, color="0.35", parse_math=False)
    panels = figure.subplots(len(rows), num_columns, sharex=True, sharey="col", squeeze=False)
    for (name, fits), axes_of_row in zip(rows.items(), panels, strict=True):
        axes_of_row[0].set_ylabel(name_in_figure(name), fontsize=9, parse_math=False)
        for axes, one in zip(axes_of_row, fits, strict=True):
            axes.plot(one.x, one.truth, color="0.2", linewidth=1.5, label="true function")
            colors = _COLORS[-len(one.after) :]
            for (number, outputs), color in zip(one.after.items(), colors, strict=True):
                style = "--" if number == 0 else "-"
                axes.plot(one.x, outputs, style, color=color, linewidth=1.2, label=_label(number))
            axes.plot(*one.support.T, "^", color="#cc79a7", markersize=5, label="support")
            axes.tick_params(labelsize=8)
            axes.grid(color="0.9", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            # A curve far off must not flatten the others.
            size = np.abs(one.truth).max()
            axes.set_ylim(-2.0 * size, 2.0 * size)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    return figure


def _label(num_steps: int) -> str:
    if num_steps == 0:
        return "before"
    return f"after {num_steps} update{'s' if num_steps > 1 else ''}"
