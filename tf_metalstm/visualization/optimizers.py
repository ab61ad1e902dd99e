"""Loss curves of optimizers beside each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLORS = (  # told apart by the colour-blind too (Okabe and Ito)
    "#d55e00",
    "#0072b2",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#555555",
    "#999933",
    "#882255",
)


def curves_figure(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], caption: str) -> Figure:
    """Draws mean losses against the update, on a log scale, with their intervals as bands.

    Args:
        curves: by name, the mean [T + 1] and the half width of its interval; the first is drawn
            on top and thicker.
        caption: one line that says what this is of.
    """
    figure = Figure(figsize=(8.0, 4.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (name, (mean, interval)) in enumerate(curves.items()):
        color = _COLORS[number % len(_COLORS)]
        updates = np.arange(len(mean))
        first = number == 0
        axes.plot(
            updates,
            mean,
            label=name,
            color=color,
            linewidth=2.2 if first else 1.2,
            linestyle="-" if number < len(_COLORS) else "--",
            zorder=3 if first else 2,
        )
        low = np.maximum(mean - interval, mean * 0.05)  # what a log scale can show
        axes.fill_between(updates, low, mean + interval, color=color, alpha=0.15, linewidth=0)
    axes.set_yscale("log", nonpositive="mask")
    axes.set_xlabel("update", fontsize=9)
    axes.set_ylabel("mean loss, log scale", fontsize=9)
    axes.grid(alpha=0.25)
    figure.legend(fontsize=8, loc="outside right upper")
    figure.supxlabel(caption, fontsize=8, color="0.35")
    return figure
