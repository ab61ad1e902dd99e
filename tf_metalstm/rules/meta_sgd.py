"""Meta-SGD: gradient descent with a learned rate for every coordinate.

Li, Zhou, Chen & Li, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", 2017:

    theta_t = theta_{t-1} - alpha o grad_t

alpha has the size of theta and is trained together with c_0. A rate may become negative.
Then its coordinate moves up the gradient.

    paper        code        shape
    theta        theta       [P]
    alpha        rate        [P]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import Options, check_bounds, option
from tf_metalstm.parameters import Blocks, num_parameters
from tf_metalstm.parts import Part
from tf_metalstm.rules.gradient_descent import GradientDescent
from tf_metalstm.rules.places import of_coordinates


@dataclass(frozen=True)
class MetaSGDOptions(Options):
    """Options of Meta-SGD."""

    meta_sgd_rates: tuple[float, ...] = option(
        (0.005, 0.1),
        "Range of the initial learned rates, drawn uniformly: LOW,HIGH.",
        above=0,
        training_only=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds("meta_sgd_rates", self.meta_sgd_rates)


@keras.saving.register_keras_serializable("tf_metalstm")
class MetaSGD(GradientDescent):
    """Gradient descent with P learned rates.

    Args:
        low: lower limit of the initial rates, which are drawn uniformly.
        high: upper limit of the initial rates.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part("meta_sgd", "Meta-SGD", "Li et al., 2017", MetaSGDOptions)
    treats_coordinates_alike = False

    @classmethod
    def from_options(cls, options: MetaSGDOptions) -> MetaSGD:  # type: ignore[override]
        low, high = options.meta_sgd_rates
        return cls(low, high)

    def __init__(
        self, low: float = 0.005, high: float = 0.1, name: str = "meta_sgd", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        MetaSGDOptions((low, high))  # checks them
        self.low, self.high = low, high

    def build(self, blocks: Blocks) -> None:
        """Creates a rate for each coordinate; the rows of all classes share the rates of one."""
        self.blocks = blocks
        initial = keras.initializers.RandomUniform(self.low, self.high)
        shape = (num_parameters(blocks),)
        self.rate = self.add_weight(shape=shape, initializer=initial, name="rate")
        self.built = True

    def rates(self, theta: Tensor, updates: Tensor) -> Tensor:
        """Returns the learned rates, [P]; they are the same in every update."""
        del updates
        return of_coordinates(tf.convert_to_tensor(self.rate), self.blocks, theta)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "low": self.low, "high": self.high}
