"""Gradient descent with one rate for all coordinates; with c_0, the inner update of MAML.

Finn, Abbeel & Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
ICML 2017, equation 1:

    theta_t = theta_{t-1} - alpha * grad_t

If c_0 is trained through this rule with `second_order`, the method is MAML; without, it is
first-order MAML. With no updates in training it is ordinary training on all tasks together. For the
fine-tuning in table 1 of Ravi & Larochelle the rate falls from update to update:

    alpha_t = alpha / (1 + d (t - 1))

    paper        code        shape
    theta        theta       [P]
    alpha        rate        []
    d            decay       []
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import option
from tf_metalstm.parts import Part
from tf_metalstm.rules.gradient_descent import GradientDescent
from tf_metalstm.rules.one_rate import OneRateRule, RateOptions


@dataclass(frozen=True)
class SGDOptions(RateOptions):
    """Options of gradient descent."""

    inner_decay: float = option(
        0.0,
        "Decay d of the learning rate: update t has inner_rate / (1 + d (t - 1)).",
        at_least=0,
        alike=True,
    )


@keras.saving.register_keras_serializable("tf_metalstm")
class SGD(OneRateRule, GradientDescent):
    """Gradient descent.

    Args:
        rate: alpha, for the gradient of the mean loss. The code of MAML's authors sums the means of
            N classes; for a rate published with it, give N times the rate.
        decay: d.
        learned: whether alpha is a meta-parameter, which starts at `rate`.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "sgd",
        "Gradient descent (MAML, first-order MAML, fine-tuning)",
        "Finn et al., ICML 2017",
        SGDOptions,
    )

    @classmethod
    def from_options(cls, options: SGDOptions) -> SGD:  # type: ignore[override]
        return cls(options.inner_rate, options.learn_inner_rate, options.inner_decay)

    def __init__(
        self,
        rate: float = 0.01,
        learned: bool = False,
        decay: float = 0.0,
        name: str = "sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(rate, learned, name, **kwargs)
        SGDOptions(rate, inner_decay=decay)  # checks them
        self.decay = decay

    def rates(self, theta: Tensor, updates: Tensor) -> Tensor:
        """Returns alpha_t for every coordinate of theta [P], [P]."""
        return self.current_rate() / (1.0 + self.decay * updates) * tf.ones_like(theta)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "decay": self.decay}
