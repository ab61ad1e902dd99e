"""The protocol of update rules: how the parameters of a learner move.

    theta_t, state_t = rule(gradient_t, loss_t, theta_{t-1}, state_{t-1})

A rule is a Keras layer. Its weights are the meta-parameters, learned across
episodes; its state belongs to one episode and is passed along, never kept. A rule
never sees an image and knows nothing of the learner whose parameters it moves.
"""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import keras

from tf_metalstm.episode import Tensor


class Gates(NamedTuple):
    """What one update kept and took, for every coordinate: theta <- forget * theta - input * grad.

    forget: the factor on the old parameters (one minus the weight decay), [P].
    input: the factor on the gradient (the learning rate), [P].
    """

    forget: Tensor
    input: Tensor


def cell_update(gates: Gates, theta: Tensor, gradient: Tensor) -> Tensor:
    """Returns theta_t = f_t * theta_{t-1} - i_t * grad_t (Ravi & Larochelle, equation 2), [P]."""
    return gates.forget * theta - gates.input * gradient


class Rule(keras.layers.Layer, abc.ABC):
    """How the flat parameter vector of a learner moves, once.

    `build` takes the shape of the gradient, (P,).
    """

    @abc.abstractmethod
    def initial_state(self, theta: Tensor) -> Any:
        """Returns the state before the first update of an episode, for theta [P]."""

    @abc.abstractmethod
    def call(self, gradient: Tensor, loss: Tensor, theta: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Returns theta [P] and the state after one update.

        Call arguments:
            gradient: of the support loss with respect to theta, [P].
            loss: the support loss at theta, a scalar.
            theta: the parameters before the update, [P].
            state: what `initial_state` or the last update returned.
        """

    @abc.abstractmethod
    def gates(self, state: Any) -> Gates:
        """Returns the gates of the update that led to `state`."""
