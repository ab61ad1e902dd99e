"""Problems: the losses that the inner loop minimizes.

    L_t, carry_t = problem.loss(theta_{t-1}, carry_{t-1}, t - 1)

The inner loop uses nothing else. The support set of an episode is a problem. Its carry is the
batch-norm statistics that the support passes collect. A function of theta is a problem too. Its
loss needs no data and its carry is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.objectives import cross_entropy
from tf_metalstm.options import OptionError

GRADIENT_DIVISORS = ("none", "batch_size")

LossFunction = Callable[[Tensor, Tensor], Tensor]


class Problem(Protocol):
    """A loss to minimize over theta [P], in steps."""

    def initial_carry(self) -> Any:
        """Returns the carry for the first step, nested tensors."""

    def loss(self, theta: Tensor, carry: Any, step: Any) -> tuple[Tensor, Any]:
        """Returns the loss at theta, a scalar, and the carry for the next step.

        Args:
            theta: parameters, [P].
            carry: the carry that `initial_carry` or the previous step returned.
            step: number of the step, from 0, an int or a scalar.
        """

    def gradient_scale(self) -> Tensor | float:
        """Returns a factor that multiplies the gradient before the rule gets it; usually 1."""


@dataclass(frozen=True)
class SupportProblem:
    """The loss of a learner on the support set of one episode.

    The carry is the learner's statistics [S], collected by the support passes so far.

    Args:
        learner: the network, a function of theta.
        support: inputs [B, ...] and labels; integers [B] for classes, real [B, D] for functions.
        loss_function: (labels, outputs) -> a scalar.
        batch_size: number of support images in a step, one batch after the other; None for all.
        gradient_divisor: "none", or "batch_size" to divide the gradient of the mean loss once more
            by the number of images in the step, as the code of the meta-LSTM's authors does.
    """

    learner: FunctionalLearner
    support: Support
    loss_function: LossFunction = cross_entropy
    batch_size: int | None = None
    gradient_divisor: str = "none"

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise OptionError("support_batch_size", f"must be at least 1, got {self.batch_size}.")
        if self.gradient_divisor not in GRADIENT_DIVISORS:
            raise OptionError(
                "gradient_divisor",
                f"must be one of {', '.join(GRADIENT_DIVISORS)}, got {self.gradient_divisor!r}.",
            )

    def initial_carry(self) -> Tensor:
        """Returns the statistics at the start of every episode, [S]."""
        return tf.convert_to_tensor(self.learner.initial_statistics())

    def loss(self, theta: Tensor, carry: Tensor, step: Any) -> tuple[Tensor, Tensor]:
        """Returns the loss of the images of this step, and the statistics after the step."""
        batch = self._batch(step)
        outputs, statistics = self.learner.apply(theta, carry, batch.inputs, training=True)
        return self.loss_function(batch.labels, outputs), statistics

    def gradient_scale(self) -> Tensor | float:
        """Returns 1, or 1 / B for the divisor "batch_size"."""
        if self.gradient_divisor == "none":
            return 1.0
        return 1.0 / tf.cast(self._num_images(), self.learner.dtype)

    def _num_images(self) -> Tensor:
        everything = tf.shape(self.support.labels)[0]
        return everything if self.batch_size is None else tf.minimum(self.batch_size, everything)

    def _batch(self, step: Any) -> Support:
        """Returns the images of a step: the next `batch_size` of the support set, cyclically."""
        if self.batch_size is None:
            return self.support
        inputs, labels = self.support
        rows = (step * self.batch_size + tf.range(self._num_images())) % tf.shape(labels)[0]
        return Support(tf.gather(inputs, rows), tf.gather(labels, rows))


@dataclass(frozen=True)
class ScaledProblem:
    """A problem in other coordinates: each is measured in a unit of its own.

    Lv, Jiang & Li, ICML 2017, section 4.1: f_c(theta) = f(c * theta). It starts at theta_0 / c, so
    that its first loss is that of the problem, and gradients are c times as large.

    Args:
        problem: f.
        scales: c, [P].
    """

    problem: Problem
    scales: Tensor

    def initial_carry(self) -> Any:
        """Returns that of the problem."""
        return self.problem.initial_carry()

    def loss(self, theta: Tensor, carry: Any, step: Any) -> tuple[Tensor, Any]:
        """Returns f(c * theta)."""
        return self.problem.loss(self.scales * theta, carry, step)

    def gradient_scale(self) -> Tensor | float:
        """Returns that of the problem."""
        return self.problem.gradient_scale()
