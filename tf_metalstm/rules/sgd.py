"""Gradient descent with one rate for all coordinates; with c_0, the inner update of MAML.

Finn, Abbeel & Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
ICML 2017, equation 1:

    theta_t = theta_{t-1} - alpha * grad_t

c_0 trained through it with `second_order` is MAML, without it first-order MAML. With no
updates in training it is ordinary training on all tasks together. For the fine-tuning of
Ravi & Larochelle's table 1 the rate falls from update to update,

    alpha_t = alpha / (1 + d (t - 1))

    paper        code        shape
    theta        theta       [P]
    alpha        rate        []
    d            decay       []
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.rules.gradient_descent import GradientDescent


@keras.saving.register_keras_serializable("tf_metalstm")
class SGD(GradientDescent):
    """Gradient descent.

    Args:
        rate: alpha, of the gradient of the mean loss. Where a published rate belongs to a sum
            over N classes of means, as in the code of MAML's authors, it is N times that.
        decay: d.
        learned: alpha is a meta-parameter too, and `rate` where it starts.
        name: fixed, and with it the names of the weights in a checkpoint.
    """

    def __init__(
        self,
        rate: float = 0.01,
        learned: bool = False,
        decay: float = 0.0,
        name: str = "sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if rate <= 0:
            raise ValueError(f"--inner_rate must be positive, got {rate}.")
        if decay < 0:
            raise ValueError(f"--inner_decay must not be negative, got {decay}.")
        self.rate = rate
        self.decay = decay
        self.learned = learned

    def build(self, gradient_shape: Any = None) -> None:
        """Creates alpha if it is learned; nothing depends on P."""
        del gradient_shape
        if self.learned:
            initial = keras.initializers.Constant(self.rate)
            self.learned_rate = self.add_weight(shape=(), initializer=initial, name="rate")
        self.built = True

    def rates(self, theta: Tensor, updates: Tensor) -> Tensor:
        """Returns alpha_t once for every coordinate of theta [P], [P]."""
        alpha = tf.convert_to_tensor(self.learned_rate) if self.learned else self.rate
        return alpha / (1.0 + self.decay * updates) * tf.ones_like(theta)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {"rate": self.rate, "learned": self.learned, "decay": self.decay}
        return {**super().get_config(), **own}
