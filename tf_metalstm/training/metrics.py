"""Accuracy over episodes, always with its 95 % interval.

    mean +- 1.96 * std / sqrt(n)

over the accuracies of n episodes, std being the sample standard deviation (n - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

_NORMAL_95 = 1.96


class Estimate(NamedTuple):
    """A mean with the half width of its 95 % interval.

    mean: of the episodes' accuracies.
    interval: half width; not a number for fewer than two episodes.
    """

    mean: float
    interval: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.2f} +- {100 * self.interval:.2f} %"


def estimate(accuracies: Sequence[float] | np.ndarray) -> Estimate:
    """Returns the mean of episode accuracies and its interval.

    >>> print(estimate([0.5, 0.7, 0.6]))
    60.00 +- 11.32 %
    """
    values = np.asarray(accuracies, np.float64)
    if len(values) < 2:
        return Estimate(float(values.mean()), float("nan"))
    return Estimate(
        float(values.mean()), float(_NORMAL_95 * values.std(ddof=1) / np.sqrt(len(values)))
    )


@keras.saving.register_keras_serializable("tf_metalstm")
class AccuracyInterval(keras.metrics.Metric):
    """Half width of the 95 % interval of the mean episode accuracy.

    Update arguments:
        y_true: query labels, [E, N*Q].
        y_pred: query logits, [E, N*Q, N].
    """

    def __init__(self, name: str = "interval", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.count = self.add_variable((), "zeros", name="count")
        self.sum = self.add_variable((), "zeros", name="sum")
        self.sum_of_squares = self.add_variable((), "zeros", name="sum_of_squares")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        del sample_weight  # every episode counts the same
        labels = tf.cast(y_true, tf.int64)
        hits = tf.cast(tf.argmax(y_pred, axis=-1) == labels, self.dtype)
        accuracies = tf.reduce_mean(hits, axis=-1)
        self.count.assign_add(tf.cast(tf.size(accuracies), self.dtype))
        self.sum.assign_add(tf.reduce_sum(accuracies))
        self.sum_of_squares.assign_add(tf.reduce_sum(tf.square(accuracies)))

    def result(self) -> tf.Tensor:
        n = tf.convert_to_tensor(self.count)
        mean = tf.math.divide_no_nan(tf.convert_to_tensor(self.sum), n)
        deviations = tf.convert_to_tensor(self.sum_of_squares) - n * tf.square(mean)
        variance = tf.math.divide_no_nan(tf.maximum(deviations, 0.0), n - 1.0)
        return _NORMAL_95 * tf.sqrt(tf.math.divide_no_nan(variance, n))
