"""Meta-SGD: gradient descent with a learned rate for every coordinate.

Li, Zhou, Chen & Li, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", 2017:

    theta_t = theta_{t-1} - alpha o grad_t

alpha has the size of theta and is trained together with c_0. A rate may become negative:
the update need not go down the gradient.

    paper        code        shape
    theta        theta       [P]
    alpha        rate        [P]
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.rules.gradient_descent import GradientDescent


@keras.saving.register_keras_serializable("tf_metalstm")
class MetaSGD(GradientDescent):
    """Gradient descent with P learned rates.

    Args:
        low: the rates start uniform between this
        high: and this.
        name: fixed, and with it the names of the weights in a checkpoint.
    """

    def __init__(
        self, low: float = 0.005, high: float = 0.1, name: str = "meta_sgd", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        if not 0 < low <= high:
            raise ValueError(
                "--meta_sgd_rates are the lowest and the highest rate to start from, both "
                f"positive, the lowest first; got {low} and {high}."
            )
        self.low, self.high = low, high

    def build(self, gradient_shape: Any) -> None:
        """Creates a rate for each of the P coordinates."""
        initial = keras.initializers.RandomUniform(self.low, self.high)
        self.rate = self.add_weight(shape=tuple(gradient_shape), initializer=initial, name="rate")
        self.built = True

    def rates(self, theta: Tensor, updates: Tensor) -> Tensor:
        """Returns the learned rates, [P], always the same."""
        del theta, updates
        return tf.convert_to_tensor(self.rate)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "low": self.low, "high": self.high}
