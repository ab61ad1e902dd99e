"""Compares curves of losses with the numbers that papers on learned optimizers have.

    final loss             log10 of the mean loss after the last update (Andrychowicz et al., 2016)
    speed-up over Adam     T / t; after t updates the mean loss is for the first time as low as that
                           of Adam after T
    inter-quartile mean    the final loss divided by that of Adam on the same problem; the mean of
                           the middle half of the problems (Agarwal et al., NeurIPS 2021)

Intervals are from the bootstrap. The problems are resampled with replacement 2,000 times, the same
ones for both optimizers. The middle 95 % of the values is the interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_RESAMPLES = 2000
_BOUNDS = (2.5, 97.5)  # percentiles


class Interval(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The numbers of one optimizer.

    log10_final: log10 of the mean final loss.
    below_best: log10 of the mean final loss divided by that of the best baseline; negative is
        better.
    speed_up: speed-up over Adam; None if the loss never gets as low.
    over_adam: inter-quartile mean of the final losses divided by those of Adam.
    """

    log10_final: Interval
    below_best: Interval
    speed_up: float | None
    over_adam: Interval


def compare(losses: np.ndarray, best: np.ndarray, adam: np.ndarray) -> Comparison:
    """Compares an optimizer with two others on the same problems.

    Args:
        losses: losses of the optimizer, [E, T + 1].
        best: losses of the best baseline, [E, T + 1].
        adam: losses of Adam, [E, T + 1].
    """
    last, of_best, of_adam = (np.asarray(each[:, -1], np.float64) for each in (losses, best, adam))
    return Comparison(
        bootstrap(lambda rows: log10_mean(last[rows]), len(last)),
        bootstrap(lambda rows: log10_mean(last[rows]) - log10_mean(of_best[rows]), len(last)),
        speed_up(losses, adam),
        bootstrap(lambda rows: inter_quartile_mean(last[rows] / of_adam[rows]), len(last)),
    )


def log10_mean(values: np.ndarray) -> float:
    """Returns log10 of the mean; infinity if the mean is not a number."""
    mean = float(np.mean(values))
    return float(np.log10(mean)) if np.isfinite(mean) and mean > 0 else float("inf")


def bootstrap(statistic: Callable[[np.ndarray], float], size: int) -> Interval:
    """Returns a statistic of rows 0 ... size - 1, and its bootstrap interval.

    Args:
        statistic: rows [n] -> a number.
        size: number of problems.
    """
    generator = np.random.default_rng(0)
    drawn = [statistic(generator.integers(0, size, size)) for _ in range(_RESAMPLES)]
    low, high = np.percentile(drawn, _BOUNDS)
    if not np.isfinite(drawn).all():  # there is no number between a number and infinity
        low, _ = np.percentile(drawn, _BOUNDS, method="lower")
        _, high = np.percentile(drawn, _BOUNDS, method="higher")
    return Interval(statistic(np.arange(size)), float(low), float(high))


def inter_quartile_mean(values: np.ndarray) -> float:
    """Returns the mean of the middle half; a value at its border counts in part.

    >>> inter_quartile_mean(np.array([100.0, 2.0, 3.0, 0.0]))
    2.5
    """
    ordered = np.sort(np.asarray(values, np.float64))
    edges = np.arange(len(ordered) + 1)
    quarter = len(ordered) / 4
    inside = np.minimum(edges[1:], 3 * quarter) - np.maximum(edges[:-1], quarter)
    weights = np.maximum(inside, 0.0)
    used = weights > 0
    return float(np.sum(weights[used] * ordered[used]) / np.sum(weights))


def speed_up(losses: np.ndarray, adam: np.ndarray) -> float | None:
    """Returns T / t; after t updates the mean loss is as low as that of Adam after T.

    Args:
        losses: [E, T + 1].
        adam: [E, T + 1].

    Returns:
        None if it never gets as low.

    >>> speed_up(np.array([[8.0, 4.0, 1.0, 1.0, 1.0]]), np.array([[8.0, 7.0, 6.0, 5.0, 4.0]]))
    4.0
    """
    curve, target = losses.mean(axis=0), adam.mean(axis=0)[-1]
    reached = np.flatnonzero(curve[1:] <= target)
    return None if len(reached) == 0 else (len(curve) - 1) / float(reached[0] + 1)


def curve(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean over problems and the half width of its 95 % interval, [T + 1] each.

    Args:
        losses: [E, T + 1].
    """
    spread = losses.std(axis=0, ddof=1) if len(losses) > 1 else np.full(losses.shape[1], np.nan)
    return losses.mean(axis=0), 1.96 * spread / np.sqrt(len(losses))
