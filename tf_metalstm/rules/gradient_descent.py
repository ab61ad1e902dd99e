"""Gradient descent, whose learning rates do not depend on the episode.

    theta_t = theta_{t-1} - rate_t * grad_t

In the words of the meta-LSTM: its forget gate is 1 and its input gate is the rate. So
whatever looks at the gates of that rule can look at those of these.
"""

from __future__ import annotations

import abc
from typing import NamedTuple

import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.rules.base import Gates, Rule, cell_update


class DescentState(NamedTuple):
    """Where a descent stands.

    gates: of the update that led here: 1 and the rates.
    updates: how many were made, a scalar of the type of theta.
    """

    gates: Gates
    updates: Tensor


class GradientDescent(Rule):
    """Gradient descent with the learning rates of a subclass."""

    uses_loss = False

    @abc.abstractmethod
    def rates(self, theta: Tensor, updates: Tensor) -> Tensor:
        """Returns the learning rate of every coordinate of theta [P] after so many updates, [P]."""

    def initial_state(self, theta: Tensor) -> DescentState:
        """Returns the state before the first update, with its gates."""
        none = tf.zeros([], theta.dtype)
        return DescentState(Gates(tf.ones_like(theta), self.rates(theta, none)), none)

    def call(
        self, gradient: Tensor, loss: Tensor, theta: Tensor, state: DescentState
    ) -> tuple[Tensor, DescentState]:
        """Returns theta - rates * gradient, and the new state; the loss is not looked at."""
        del loss
        gates = Gates(tf.ones_like(theta), self.rates(theta, state.updates))
        return cell_update(gates, theta, gradient), DescentState(gates, state.updates + 1)

    def trace(self, state: DescentState) -> dict[str, Tensor]:
        """Returns 1 and the rates, as the gates that they are."""
        return state.gates.trace()
