"""Objectives: the loss and the score of classification, regression and optimization.

    classification   loss = mean of -log softmax(outputs)[label]   score = accuracy
    regression       loss = mean of (outputs - label)^2            score = the same, "mse"
    optimization     loss = mean of the losses of all updates      score = the last, "final_loss"

Everything that depends on the kind of label is in this file. So the inner loop, training,
evaluation and export work with all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from tf_metalstm.episode import Tensor


def cross_entropy(labels: Tensor, outputs: Tensor) -> Tensor:
    """Returns the mean softmax cross-entropy of labels [..., B], logits [..., B, N], a scalar.

    A label outside of 0 ... N - 1 adds nothing to the sum, so callers must check labels of users.
    """
    # TensorFlow's own cross-entropy, if deterministic, has a hundred operations in each update.
    outputs = tf.convert_to_tensor(outputs)
    num_way = outputs.shape[-1] if outputs.shape.rank else None
    if num_way is None:
        num_way = tf.shape(outputs)[-1]
    chosen = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=outputs.dtype)
    return -tf.reduce_mean(tf.reduce_sum(chosen * tf.nn.log_softmax(outputs), axis=-1))


def mean_squared_error(labels: Tensor, outputs: Tensor) -> Tensor:
    """Returns the mean of (outputs - labels)^2 over all entries; both have the same shape."""
    return tf.reduce_mean(_squares(labels, outputs))


def _accuracies(labels: Tensor, outputs: Tensor) -> Tensor:
    answers = tf.argmax(outputs, axis=-1, output_type=tf.int32)
    right = answers == tf.cast(labels, tf.int32)
    # If a logit is NaN, argmax would return class 0. Such an answer counts as wrong.
    right &= ~tf.reduce_any(tf.math.is_nan(outputs), axis=-1)
    return tf.reduce_mean(tf.cast(right, tf.float32), axis=-1)


def _squared_errors(labels: Tensor, outputs: Tensor) -> Tensor:
    return tf.cast(tf.reduce_mean(_squares(labels, outputs), axis=[-2, -1]), tf.float32)


def _mean_of_losses(labels: Tensor, outputs: Tensor) -> Tensor:
    del labels  # the outputs of an optimization task are its losses
    return tf.reduce_mean(outputs)


def _last_losses(labels: Tensor, outputs: Tensor) -> Tensor:
    del labels
    return tf.cast(outputs[..., -1], tf.float32)


def _squares(labels: Tensor, outputs: Tensor) -> Tensor:
    outputs = tf.convert_to_tensor(outputs)
    return tf.math.squared_difference(outputs, tf.cast(labels, outputs.dtype))


@dataclass(frozen=True)
class Objective:
    """The loss and the score of a kind of task.

    name: "classification", "regression" or "optimization".
    has_classes: True if labels are integers [B] and outputs are logits [B, N]; False if both are
        real, [B, D].
    loss: (labels, outputs) -> a scalar, the mean over all entries; inner and outer loop minimize
        it.
    loss_name: name of the loss in words, for figures.
    score_name: name of the reported score, and of the Keras metric.
    scores: (labels of E episodes, their outputs) -> the score of each, float32 [E]. An answer with
        a NaN among its logits counts as wrong; an error that is NaN stays NaN.
    greater_is_better: whether a higher score is better.
    """

    name: str
    has_classes: bool
    loss: Callable[[Tensor, Tensor], Tensor]
    loss_name: str
    score_name: str
    scores: Callable[[Tensor, Tensor], Tensor]
    greater_is_better: bool

    def is_better(self, score: float, other: float) -> bool:
        """Returns whether `score` is better than `other`; any score is better than NaN."""
        if other != other:
            return True
        return score > other if self.greater_is_better else score < other

    def text(self, mean: float, interval: float) -> str:
        """Returns a text of a mean score with the half width of its 95 % interval.

        >>> CLASSIFICATION.text(0.98765, 0.00123), REGRESSION.text(0.3456, 0.0351)
        ('98.77 +- 0.12 %', '0.346 +- 0.035')
        """
        if self.has_classes:
            return f"{100 * mean:.2f} +- {100 * interval:.2f} %"
        return f"{mean:.3f} +- {interval:.3f}"


CLASSIFICATION = Objective(
    name="classification",
    has_classes=True,
    loss=cross_entropy,
    loss_name="cross-entropy",
    score_name="accuracy",
    scores=_accuracies,
    greater_is_better=True,
)

REGRESSION = Objective(
    name="regression",
    has_classes=False,
    loss=mean_squared_error,
    loss_name="mean squared error",
    score_name="mse",
    scores=_squared_errors,
    greater_is_better=False,
)

OPTIMIZATION = Objective(
    name="optimization",
    has_classes=False,
    loss=_mean_of_losses,
    loss_name="loss",
    score_name="final_loss",
    scores=_last_losses,
    greater_is_better=False,
)

OBJECTIVES = {one.name: one for one in (CLASSIFICATION, REGRESSION, OPTIMIZATION)}
