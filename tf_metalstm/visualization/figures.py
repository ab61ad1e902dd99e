"""Figure 3 of the paper, and a figure of the loss, drawn without global state of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullLocator,
    ScalarFormatter,
)

from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.visualization.traces import WEIGHT_DECAY, Curves

_WIDTH = 8.0  # inches; 800 pixels, the width of a README
_DPI = 100
_ROW_HEIGHT = 1.35
_FRAME_HEIGHT = 1.15  # inches for titles, axis label and caption
_ROUNDING = 1e-5  # relative to the values; curves with a smaller range are drawn as constant
_MARGIN = 0.08  # relative to the range, above and below the curves
_SMALL, _GRAY = 8, "0.35"
_TITLES = {
    FORGET_GATES: "forget gate $f_t$",
    WEIGHT_DECAY: "weight decay $1 - f_t$",
    INPUT_GATES: "input gate $i_t$",
}
_COLORS = (  # colour-blind people can distinguish these (Okabe and Ito, without yellow)
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#555555",
)


def trace_figure(curves: Curves, caption: str) -> Figure:
    """Returns figure 3: traces over the updates, a row for each layer and a curve for each task.

    All panels of a column have the same scale, which covers all drawn values. The weight decay has
    a logarithmic scale, without the values that are 0.

    Args:
        curves: curves of E tasks at L coordinates.
        caption: one line that describes the data.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not curves.values:
        raise ValueError("The rule has no trace of its updates, so there is nothing to draw.")
    num_layers, num_steps = next(iter(curves.values.values())).shape[1:]
    _check_updates(num_steps)
    figure = _figure(_FRAME_HEIGHT + _ROW_HEIGHT * num_layers, caption)
    shape = (num_layers, len(curves.values))
    panels = figure.subplots(*shape, sharex=True, sharey="col", squeeze=False)
    for column, (name, values) in enumerate(curves.values.items()):
        panels[0, column].set_title(title_of(name), fontsize=11)
        panels[-1, column].set_xlabel("update t", fontsize=9)
        for layer, coordinate in enumerate(curves.coordinates):
            axes = panels[layer, column]
            _draw(axes, values[:, layer])
            if column == 0:
                axes.set_ylabel(f"{coordinate.layer}\n{coordinate.position}", fontsize=_SMALL)
        _set_scale(panels[0, column], values, name)
    return figure


def title_of(name: str) -> str:
    """Returns the title of a trace in a figure."""
    return _TITLES.get(name, name.replace("_", " "))


def loss_figure(losses: np.ndarray, caption: str, loss_name: str = "cross-entropy") -> Figure:
    """Returns a figure of the loss before each update, with a curve for each task.

    Args:
        losses: losses, [E, T].
        caption: one line that describes the data.
        loss_name: name of the loss in words.

    Raises:
        ValueError: there were no updates.
    """
    _check_updates(losses.shape[1])
    figure = _figure(3.2, caption)
    axes = figure.subplots()
    _draw(axes, losses)
    axes.set_title("loss $L_t$, before update t", fontsize=11)
    axes.set_xlabel("update t", fontsize=9)
    axes.set_ylabel(f"{loss_name}, log scale", fontsize=9)
    if np.any(losses > 0):  # a log scale needs positive values
        axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(FuncFormatter(_plain_number))
    return figure


def adaptation_figure(losses: np.ndarray, traces: Mapping[str, np.ndarray]) -> Figure:
    """Returns a figure of one adaptation: the support loss and the traces of the rule.

    For a trace it shows the median over the parameters, and a band from the 5th to the 95th
    percentile.

    Args:
        losses: loss before each update, [T].
        traces: name -> values [T, ...].

    Raises:
        ValueError: there were no updates.
    """
    _check_updates(len(losses))
    figure = Figure(figsize=(4.6, 1.9 + 1.65 * len(traces)), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1 + len(traces), sharex=True, squeeze=False)[:, 0]
    _draw(panels[0], losses[np.newaxis])
    panels[0].set_title("support loss $L_t$, before update t", fontsize=9)
    panels[0].set_ylim(bottom=0.0)
    for axes, (name, values) in zip(panels[1:], traces.items(), strict=True):
        low, middle, high = np.percentile(values.reshape(len(values), -1), [5, 50, 95], axis=1)
        updates = np.arange(1, len(losses) + 1)
        axes.fill_between(updates, low, high, color=_COLORS[0], alpha=0.2, linewidth=0)
        _draw(axes, middle[np.newaxis])
        title = f"{title_of(name)} of all parameters: median, 5 to 95 %"
        axes.set_title(title, fontsize=9)
        _set_scale(axes, np.stack([low, high]), name)
    panels[-1].set_xlabel("update t", fontsize=9)
    return figure


def figure_image(figure: Figure) -> np.ndarray:
    """Returns a figure as pixels for `tf.summary.image`, uint8 [1, h, w, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # savefig would draw twice, because of the layout
    return np.asarray(canvas.buffer_rgba())[np.newaxis, ..., :3]


def _figure(height: float, caption: str) -> Figure:
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    figure.supxlabel(caption, fontsize=_SMALL, color=_GRAY, parse_math=False)
    return figure


def _draw(axes: Axes, curves: np.ndarray) -> None:
    """Draws values [E, T] as E curves; episode e has the same colour in every panel."""
    updates = np.arange(1, curves.shape[1] + 1)
    for episode, curve in enumerate(curves):
        color = _COLORS[episode % len(_COLORS)]
        axes.plot(updates, curve, color=color, linewidth=1.0, marker="o", markersize=2.5, alpha=0.7)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.set_xlim(updates[0] - 0.3, updates[-1] + 0.3)
    plain = ScalarFormatter(useOffset=False)
    plain.set_scientific(False)
    axes.yaxis.set_major_formatter(plain)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _set_scale(axes: Axes, values: np.ndarray, name: str) -> None:
    if name == WEIGHT_DECAY and np.any(values > 0):
        _set_log_scale(axes, values[values > 0])
        return
    low, high = float(np.min(values)), float(np.max(values))
    if not np.isfinite([low, high]).all():
        return
    size = max(abs(low), abs(high))
    if high - low <= _ROUNDING * size:
        room = 0.1 * size or 0.1
        low, high = low - room, high + room
    margin = _MARGIN * (high - low)
    axes.set_ylim(low - margin, high + margin)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))


def _set_log_scale(axes: Axes, values: np.ndarray) -> None:
    axes.set_yscale("log", nonpositive="mask")
    decades = np.log10([np.min(values), np.max(values)])
    low, high = np.floor(decades[0] - 1e-3), np.ceil(decades[1] + 1e-3)  # at least one decade
    axes.set_ylim(10.0**low, 10.0**high)
    axes.yaxis.set_major_locator(LogLocator(numticks=5))
    axes.yaxis.set_major_formatter(LogFormatterSciNotation())
    axes.yaxis.set_minor_locator(NullLocator())


def _plain_number(value: float, _position: int | None = None) -> str:
    return np.format_float_positional(value, trim="-")


def _check_updates(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError("There are no updates to draw: num_steps is 0.")
