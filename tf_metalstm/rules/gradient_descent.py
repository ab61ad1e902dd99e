"""Gradient descent with learning rates that do not depend on the episode.

    theta_t = theta_{t-1} - rate_t * grad_t

This is a meta-LSTM whose forget gate is 1 and whose input gate is the rate. So everything
that shows the gates of the meta-LSTM shows these too.
"""

from __future__ import annotations

import abc
from typing import NamedTuple

import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.rules.base import Gates, Rule, cell_update


class DescentState(NamedTuple):
    """The state of gradient descent.

    gates: the gates of the last update: 1 and the rates.
    updates: number of updates so far, a scalar of the type of theta.
    """

    gates: Gates
    updates: Tensor


class GradientDescent(Rule):
    """Gradient descent with the learning rates of a subclass."""

    uses_loss = False

    @abc.abstractmethod
    def rates(self, theta: Tensor, updates: Tensor) -> Tensor:
        """Returns the rate of each coordinate of theta [P], after `updates` updates, [P]."""

    def initial_state(self, theta: Tensor) -> DescentState:
        """Returns the state before the first update, with its gates."""
        none = tf.zeros([], theta.dtype)
        return DescentState(Gates(tf.ones_like(theta), self.rates(theta, none)), none)

    def call(
        self, gradient: Tensor, loss: Tensor, theta: Tensor, state: DescentState
    ) -> tuple[Tensor, DescentState]:
        """Returns theta - rates * gradient, and the new state; the loss is not used."""
        del loss
        gates = Gates(tf.ones_like(theta), self.rates(theta, state.updates))
        return cell_update(gates, theta, gradient), DescentState(gates, state.updates + 1)

    def trace(self, state: DescentState) -> dict[str, Tensor]:
        """Returns the gates: 1 and the rates."""
        return state.gates.trace()
