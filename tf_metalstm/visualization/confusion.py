"""The confusion matrix as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from tf_metalstm.confusion import Confusion
from tf_metalstm.visualization.words import name_in_figure

MOST_CLASSES = 40
"""Largest number of rows and columns; of more classes those with the lowest accuracy are drawn."""

_DPI = 100
_CELL = 0.24  # inches
_FRAME = 2.4  # inches for names and color bar
_SMALL, _GRAY = 7, "0.35"


def confusion_figure(confusion: Confusion, caption: str) -> Figure:
    """Returns a figure of the confusion matrix, in shares; white if two classes never met.

    Args:
        confusion: counts of at least one query.
        caption: one line that describes the data.
    """
    hardest = confusion.hardest_first
    drawn = np.sort(hardest[:MOST_CLASSES])
    if len(drawn) < len(hardest):
        caption = f"{caption}; the {len(drawn)} hardest of {len(hardest)} classes"
    names = [name_in_figure(confusion.names[number]) for number in drawn]
    side = max(4.0, _FRAME + _CELL * len(drawn))
    figure = Figure(figsize=(side + 0.8, side), dpi=_DPI, layout="constrained")
    figure.supxlabel(caption, fontsize=_SMALL, color=_GRAY, parse_math=False)
    axes = figure.subplots()
    shares = 100 * confusion.shares[np.ix_(drawn, drawn)]
    image = axes.imshow(np.ma.masked_invalid(shares), cmap="viridis", vmin=0, vmax=100)
    axes.set_xticks(range(len(drawn)), names, rotation=90, fontsize=_SMALL, parse_math=False)
    axes.set_yticks(range(len(drawn)), names, fontsize=_SMALL, parse_math=False)
    axes.set_xlabel("taken for", fontsize=9)
    axes.set_ylabel("class", fontsize=9)
    bar = figure.colorbar(image, shrink=0.8)
    bar.set_label("% of the queries in episodes with both classes", fontsize=_SMALL)
    bar.ax.tick_params(labelsize=_SMALL)
    return figure
