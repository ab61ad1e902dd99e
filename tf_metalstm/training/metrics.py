"""The mean score of episodes with its 95 % interval.

    mean +- 1.96 * std / sqrt(n)

n is the number of episodes. Their scores are accuracies or mean squared errors. std is the sample
standard deviation (divided by n - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.objectives import Objective

_NORMAL_95 = 1.96


class Estimate(NamedTuple):
    """A mean with the half width of its 95 % interval.

    mean: mean of the scores of the episodes.
    interval: half width of the interval; NaN for fewer than two episodes.
    """

    mean: float
    interval: float


def estimate(scores: Sequence[float] | np.ndarray) -> Estimate:
    """Returns the mean of the scores of episodes, and its interval.

    >>> estimate([0.5, 0.7, 0.6])
    Estimate(mean=0.6, interval=0.113)
    """
    values = np.asarray(scores, np.float64)
    if len(values) < 2:
        return Estimate(float(values.mean()), float("nan"))
    return Estimate(
        float(values.mean()), float(_NORMAL_95 * values.std(ddof=1) / np.sqrt(len(values)))
    )


class MeanScore(keras.metrics.Mean):
    """Mean score of the episodes; the objective says what the score is called.

    Update arguments:
        y_true: query labels of E episodes.
        y_pred: query outputs of E episodes.
    """

    def __init__(self, objective: Objective, **kwargs: Any) -> None:
        super().__init__(name=objective.score_name, **kwargs)
        self.objective = objective

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds the scores of E episodes."""
        del sample_weight  # every episode counts the same
        super().update_state(self.objective.scores(y_true, y_pred))


class ScoreInterval(keras.metrics.Metric):
    """Half width of the 95 % interval of the mean score.

    Update arguments:
        y_true: query labels of E episodes.
        y_pred: query outputs of E episodes.
    """

    def __init__(self, objective: Objective, **kwargs: Any) -> None:
        super().__init__(name="interval", **kwargs)
        self.objective = objective
        # In float32 the difference of two large sums would be lost.
        self.count, self.sum, self.sum_of_squares = (
            self.add_variable((), "zeros", dtype="float64", name=name)
            for name in ("count", "sum", "sum_of_squares")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds the scores of E episodes."""
        del sample_weight
        scores = tf.cast(self.objective.scores(y_true, y_pred), tf.float64)
        self.count.assign_add(tf.cast(tf.size(scores), tf.float64))
        self.sum.assign_add(tf.reduce_sum(scores))
        self.sum_of_squares.assign_add(tf.reduce_sum(tf.square(scores)))

    def result(self) -> tf.Tensor:
        """Returns 1.96 s / sqrt(n) over all episodes so far."""
        n = tf.convert_to_tensor(self.count)
        mean = tf.math.divide_no_nan(tf.convert_to_tensor(self.sum), n)
        deviations = tf.convert_to_tensor(self.sum_of_squares) - n * tf.square(mean)
        variance = tf.math.divide_no_nan(tf.maximum(deviations, 0.0), n - 1.0)
        interval = _NORMAL_95 * tf.sqrt(tf.math.divide_no_nan(variance, n))
        return tf.cast(interval, self.dtype)
