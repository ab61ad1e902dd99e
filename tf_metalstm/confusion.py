"""The confusion matrix over episodes, and the accuracy of each class.

In an episode a class can only be confused with the other classes of the episode. So only episodes
with both classes count:

    share of a taken for b = answers b to queries of a / queries of a in episodes that have b
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_MOST_LIKELY = 3  # number of wrong answers in a row of the table


class Confusion:
    """Counts answers by class.

    Args:
        names: names of the C classes.

    Attributes:
        names: the argument `names`.
        counts: number of queries of class i (row) with answer j (column), int [C, C].
        met: number of queries of class i (row) in episodes that have class j (column), int [C, C].
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.counts = np.zeros([len(names)] * 2, np.int64)
        self.met = np.zeros([len(names)] * 2, np.int64)

    def add(self, classes: np.ndarray, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Adds the answers of an episode; outputs with NaN count as queries without an answer.

        Args:
            classes: numbers of the classes of the episode, [N].
            labels: labels of the queries, in [0, N), [B].
            outputs: logits, [B, N] or wider.
        """
        answered = ~np.isnan(outputs).any(axis=1)
        answers = np.argmax(outputs[answered], axis=1)
        np.add.at(self.counts, (classes[labels[answered]], classes[answers]), 1)
        queries = np.bincount(labels, minlength=len(classes))
        self.met[np.ix_(classes, classes)] += queries[:, np.newaxis]

    @property
    def queries(self) -> np.ndarray:
        """Number of queries of each class, [C]."""
        return np.diagonal(self.met)

    @property
    def shares(self) -> np.ndarray:
        """Shares of the formula above, [C, C]; the diagonal has accuracies; NaN without queries."""
        with np.errstate(invalid="ignore"):
            return self.counts / self.met

    @property
    def hardest_first(self) -> np.ndarray:
        """Numbers of the classes with queries, the lowest accuracy first."""
        order = np.argsort(np.diagonal(self.shares), kind="stable")
        return order[self.queries[order] > 0]

    def report(self) -> dict[str, Any]:
        """Returns queries, accuracy and wrong answers of each class, as values for JSON."""
        by_class, shares = {}, self.shares
        for number in np.flatnonzero(self.queries).tolist():
            others = [n for n in np.flatnonzero(self.counts[number]).tolist() if n != number]
            others.sort(key=lambda n: -shares[number, n])
            by_class[self.names[number]] = {
                "queries": int(self.queries[number]),
                "accuracy": round(float(shares[number, number]), 6),
                "taken_for": {
                    self.names[n]: {
                        "answers": int(self.counts[number, n]),
                        "of": int(self.met[number, n]),
                    }
                    for n in others
                },
            }
        return by_class

    def table(self, num_rows: int) -> str:
        """Returns a table of the classes with the lowest accuracy and their wrong answers."""
        lines = [("class", "queries", "accuracy", "taken for")]
        all_shares = self.shares
        for number in self.hardest_first[:num_rows].tolist():
            shares = np.where(self.counts[number] > 0, all_shares[number], 0.0)
            shares[number] = 0.0
            likely = [n for n in np.argsort(-shares)[:_MOST_LIKELY].tolist() if shares[n] > 0]
            taken_for = ", ".join(f"{self.names[n]} {shares[n]:.1%}" for n in likely)
            accuracy = f"{all_shares[number, number]:.1%}"
            lines.append((self.names[number], f"{self.queries[number]}", accuracy, taken_for))
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        rows = [
            f"{name:<{widths[0]}}  {queries:>{widths[1]}}  {accuracy:>{widths[2]}}  {taken_for}"
            for name, queries, accuracy, taken_for in lines
        ]
        omitted = len(self.hardest_first) - num_rows
        more = [f"... and {omitted} more classes, of higher accuracy"] if omitted > 0 else []
        return "\n".join(line.rstrip() for line in [*rows, *more])
