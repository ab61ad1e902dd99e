"""Momentum, RMSprop and Adam as rules, so that their learning rate can be a meta-parameter.

    theta_t = theta_{t-1} - alpha * d_t

    momentum   m_t = b m_{t-1} + grad_t,  d_t = m_t                           b = 0.9

    RMSprop    v_t = r v_{t-1} + (1 - r) grad_t^2                             r = 0.9
               d_t = grad_t / (sqrt(v_t) + e)

    Adam       m_t = b_1 m_{t-1} + (1 - b_1) grad_t                           b_1 = 0.9
               v_t = b_2 v_{t-1} + (1 - b_2) grad_t^2                         b_2 = 0.999
               d_t = m_t / (1 - b_1^t) / (sqrt(v_t / (1 - b_2^t)) + e)

Polyak, 1964; Tieleman & Hinton, lecture 6.5 of a course, 2012; Kingma & Ba, "Adam: A Method for
Stochastic Optimization", ICLR 2015, algorithm 1. e is 1e-7. Keras has the same three optimizers for
the variables of a model. These are functions of a vector, and a meta-gradient flows through them.

    paper        code           shape
    theta        theta          [P]
    alpha        rate           []
    m, v         state          [P]
"""

from __future__ import annotations

import abc
from typing import ClassVar

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.parts import Part
from tf_metalstm.rules.one_rate import OneRateRule, RateOptions

_EPSILON = 1e-7
_MOMENTUM = 0.9
_RMSPROP_DECAY = 0.9
_ADAM_DECAYS = (0.9, 0.999)


class ClassicRule(OneRateRule):
    """theta - alpha * d; the subclass computes d from all gradients so far."""

    @classmethod
    def from_options(cls, options: RateOptions) -> ClassicRule:  # type: ignore[override]
        """Returns the rule with these options."""
        return cls(options.inner_rate, options.learn_inner_rate)

    num_moments: ClassVar[int]
    """Number of moments, vectors computed from earlier gradients; they start at zero."""

    @abc.abstractmethod
    def direction(
        self, gradient: Tensor, moments: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns d [P] and the moments after this gradient [P]."""

    def initial_state(self, theta: Tensor) -> tuple[Tensor, ...]:
        """Returns the moments before the first update: zeros."""
        return tuple(tf.zeros_like(theta) for _ in range(self.num_moments))

    def call(
        self, gradient: Tensor, loss: Tensor, theta: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns theta - alpha * d and the moments; the loss is not used."""
        del loss
        direction, state = self.direction(gradient, state)
        return theta - self.current_rate() * direction, state


@keras.saving.register_keras_serializable("tf_metalstm")
class Momentum(ClassicRule):
    """Gradient descent with momentum."""

    part = Part("momentum", "Momentum", "Polyak, 1964", RateOptions)
    num_moments = 1

    def direction(
        self, gradient: Tensor, moments: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns d_t = m_t."""
        [mean] = moments
        mean = _MOMENTUM * mean + gradient
        return mean, (mean,)


@keras.saving.register_keras_serializable("tf_metalstm")
class RMSprop(ClassicRule):
    """Gradient descent; each gradient is divided by the root of the mean square of gradients."""

    part = Part("rmsprop", "RMSprop", "Tieleman & Hinton, 2012", RateOptions)
    num_moments = 1

    def direction(
        self, gradient: Tensor, moments: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns d_t = grad_t / (sqrt(v_t) + e)."""
        [square] = moments
        square = _mean(square, tf.square(gradient), _RMSPROP_DECAY)
        return gradient / (_root(square) + _EPSILON), (square,)


@keras.saving.register_keras_serializable("tf_metalstm")
class Adam(ClassicRule):
    """Adam; its state also has the number of updates."""

    part = Part("adam", "Adam", "Kingma & Ba, ICLR 2015", RateOptions)
    num_moments = 2

    def initial_state(self, theta: Tensor) -> tuple[Tensor, ...]:
        """Returns the moments before the first update: zeros."""
        return (*super().initial_state(theta), tf.zeros([], theta.dtype))

    def direction(
        self, gradient: Tensor, moments: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns d_t, from m_t and v_t with bias correction."""
        mean, square, updates = moments
        updates = updates + 1.0
        mean = _mean(mean, gradient, _ADAM_DECAYS[0])
        square = _mean(square, tf.square(gradient), _ADAM_DECAYS[1])
        by_mean, by_square = (
            1.0 - tf.pow(tf.cast(decay, updates.dtype), updates) for decay in _ADAM_DECAYS
        )
        direction = mean / by_mean / (_root(square / by_square) + _EPSILON)
        return direction, (mean, square, updates)


def _mean(before: Tensor, value: Tensor, decay: float) -> Tensor:
    return decay * before + (1.0 - decay) * value


def _root(square: Tensor) -> Tensor:
    """Returns the square root; its derivative at zero is zero, not infinity."""
    positive = square > 0.0
    return tf.where(positive, tf.sqrt(tf.where(positive, square, tf.ones_like(square))), 0.0)
