"""Accuracy at the first, second, ... showing of a class in a stream.

Before the k-th showing the stream had k - 1 examples of the class. For memory-augmented networks,
tables of few-shot learning have 82.8 and 94.9 %. These are accuracies at the 2nd and the 5th
showing, after 1 and 4 examples in a stream, and not of episodes with queries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_metalstm.data.streams import showings
from tf_metalstm.training.metrics import estimate

_SHOWN = (1, 2, 3, 4, 5, 10)


class AccuracyByShowing:
    """Collects the answers to streams in which each class is shown equally often."""

    def __init__(self) -> None:
        self._shares: list[np.ndarray] = []

    def add(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Adds the answers to a stream; outputs with NaN count as wrong.

        Args:
            labels: labels, [T].
            outputs: logits, [T, N].
        """
        right = (np.argmax(outputs, axis=1) == labels) & ~np.isnan(outputs).any(axis=1)
        showing = showings(labels)
        self._shares.append(np.bincount(showing, weights=right) / np.bincount(showing))

    @property
    def accuracies(self) -> np.ndarray:
        """Returns the accuracy of each stream at each showing, [streams, showings]."""
        return np.array(self._shares)

    def report(self) -> list[dict[str, Any]]:
        """Returns the mean and the half width of its 95 % interval at each showing, for JSON."""
        entries = []
        for number, values in enumerate(self.accuracies.T, start=1):
            mean, interval = estimate(values)
            known = None if np.isnan(interval) else round(interval, 6)
            entries.append({"showing": number, "mean": round(mean, 6), "interval": known})
        return entries

    def table(self) -> str:
        """Returns a text with the accuracies at the showings in the paper's table."""
        rows = [row for row in self.report() if row["showing"] in _SHOWN]
        lines = ["showing   accuracy"]
        for row in rows:
            interval = float("nan") if row["interval"] is None else row["interval"]
            lines.append(f"{row['showing']:>7}   {100 * row['mean']:.1f} +- {100 * interval:.1f} %")
        return "\n".join(lines)
