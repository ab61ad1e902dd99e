"""Rules whose learning rates do not change during an episode.

    theta_t = theta_{t-1} - rate * grad_t

In the words of the meta-LSTM: its forget gate is 1 and its input gate is the rate. So
whatever looks at the gates of that rule can look at those of these.
"""

from __future__ import annotations

import abc

import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.rules.base import Gates, Rule, cell_update


class GradientDescent(Rule):
    """A subclass says what the rates are; the state is the gates, which stay as they are."""

    @abc.abstractmethod
    def rates(self, theta: Tensor) -> Tensor:
        """Returns the learning rate of every coordinate of theta [P], [P]."""

    def initial_state(self, theta: Tensor) -> Gates:
        """Returns the gates of every update to come."""
        return Gates(forget=tf.ones_like(theta), input=self.rates(theta))

    def call(
        self, gradient: Tensor, loss: Tensor, theta: Tensor, state: Gates
    ) -> tuple[Tensor, Gates]:
        """Returns theta - rate * gradient, and the state as it was; the loss is not looked at."""
        del loss
        return cell_update(state, theta, gradient), state

    def gates(self, state: Gates) -> Gates:
        """Returns 1 and the rates."""
        return state
