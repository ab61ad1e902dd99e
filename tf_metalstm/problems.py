"""What the inner loop works on: anything with a loss.

    L_t, carry_t = problem.loss(theta_{t-1}, carry_{t-1}, t - 1)

The inner loop knows nothing else. The support set of an episode is a problem, whose carry is the
batch-norm statistics that its passes collect. A function of theta that is to be minimized is a
problem too. Its loss needs no data and its carry is empty.
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
    """Something to minimize over theta [P], in steps."""

    def initial_carry(self) -> Any:
        """Returns what goes into the first step beside theta, nested tensors."""

    def loss(self, theta: Tensor, carry: Any, step: Any) -> tuple[Tensor, Any]:
        """Returns the loss at theta, a scalar, and what goes into the next step.

        Args:
            theta: [P].
            carry: as `initial_carry` or the last step returned it.
            step: number of the step from 0 on, an int or a scalar.
        """

    def gradient_scale(self) -> Tensor | float:
        """Returns the factor on the gradient that the rule is given; 1 nearly always."""


@dataclass(frozen=True)
class SupportProblem:
    """The support set of one episode, under a learner.

    The carry is the learner's statistics [S], collected by the support passes so far.

    Args:
        learner: the network, a function of theta.
        support: inputs [B, ...] and labels, of classes [B] or real [B, D].
        loss_function: (labels, outputs) -> a scalar.
        batch_size: support images of a step, taken in turn; None takes all of them.
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
        """Returns the statistics that every episode starts from, [S]."""
        return tf.convert_to_tensor(self.learner.initial_statistics())

    def loss(self, theta: Tensor, carry: Tensor, step: Any) -> tuple[Tensor, Tensor]:
        """Returns the loss of the images of this step, and the statistics after it."""
        batch = self._batch(step)
        outputs, statistics = self.learner.apply(theta, carry, batch.inputs, training=True)
        return self.loss_function(batch.labels, outputs), statistics

    def gradient_scale(self) -> Tensor | float:
        """Returns 1, or 1 / B."""
        if self.gradient_divisor == "none":
            return 1.0
        return 1.0 / tf.cast(self._num_images(), self.learner.dtype)

    def _num_images(self) -> Tensor:
        everything = tf.shape(self.support.labels)[0]
        return everything if self.batch_size is None else tf.minimum(self.batch_size, everything)

    def _batch(self, step: Any) -> Support:
        """Returns the images of a step: stretches of the support set, taken in turn, cyclic."""
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
