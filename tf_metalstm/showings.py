"""Accuracy at the first, second, ... showing of a class in a stream.

At the k-th showing k - 1 examples have been seen. The 82.8 and 94.9 % that tables of few-shot
learning give for memory-augmented networks are those of the 2nd and the 5th showing, so of 1 and of
4 examples in a stream: not of episodes with queries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_metalstm.data.streams import showings
from tf_metalstm.training.metrics import estimate

_SHOWN = (1, 2, 3, 4, 5, 10)


class AccuracyByShowing:
    """Collects the answers to streams, each class of which is shown equally often."""

    def __init__(self) -> None:
        self._shares: list[np.ndarray] = []

    def add(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Adds the answers to a stream; logits that are no numbers are no answer.

        Args:
            labels: [T].
            outputs: logits, [T, N].
        """
        right = (np.argmax(outputs, axis=1) == labels) & ~np.isnan(outputs).any(axis=1)
        showing = showings(labels)
        self._shares.append(np.bincount(showing, weights=right) / np.bincount(showing))

    @property
    def accuracies(self) -> np.ndarray:
        """Accuracy of each stream at each showing, [streams, showings]."""
        return np.array(self._shares)

    def report(self) -> list[dict[str, Any]]:
        """Returns mean and half width of the 95 % interval at each showing, for JSON."""
        found = []
        for number, values in enumerate(self.accuracies.T, start=1):
            mean, interval = estimate(values)
            known = None if np.isnan(interval) else round(interval, 6)
            found.append({"showing": number, "mean": round(mean, 6), "interval": known})
        return found

    def table(self) -> str:
        """Returns the accuracies at the showings that the paper names, as text."""
        rows = [row for row in self.report() if row["showing"] in _SHOWN]
        lines = ["showing   accuracy"]
        for row in rows:
            interval = float("nan") if row["interval"] is None else row["interval"]
            lines.append(f"{row['showing']:>7}   {100 * row['mean']:.1f} +- {100 * interval:.1f} %")
        return "\n".join(lines)
