"""Gradient descent with a learned rate for each tensor of the learner and each update.

Antoniou, Edwards & Storkey, "How to train your MAML", ICLR 2019, section 4, "Learning Per-Layer
Per-Step Learning Rates and Gradient Directions" (MAML++). For every coordinate of tensor l

    theta_t = theta_{t-1} - alpha_{l,t} * grad_t

If there are more updates than rates, the later updates use the last rates.

    paper          code        shape
    theta          theta       [P]
    alpha_{l,t}    rate        [updates, tensors]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import Options, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.rules.gradient_descent import GradientDescent
from tf_metalstm.rules.places import of_blocks, row_of


@dataclass(frozen=True)
class LayerSGDOptions(Options):
    """Options of gradient descent with a rate for each tensor and update."""

    layer_rate: float = option(0.01, "Initial value of every learned rate.", above=0, settled=True)
    rate_updates: int = option(
        5,
        "Number of updates with their own learned rates; later updates use the last ones.",
        at_least=1,
        alike=True,
        settled=True,
    )


@keras.saving.register_keras_serializable("tf_metalstm")
class LayerSGD(GradientDescent):
    """Gradient descent with a learned rate for each tensor and update.

    Args:
        rate: initial value of every rate.
        rate_updates: number of updates with their own rates.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "layer_sgd",
        "Gradient descent with a rate for each tensor and update (MAML++)",
        "Antoniou et al., ICLR 2019",
        LayerSGDOptions,
    )
    treats_coordinates_alike = False

    @classmethod
    def from_options(cls, options: LayerSGDOptions) -> LayerSGD:  # type: ignore[override]
        return cls(options.layer_rate, options.rate_updates)

    def __init__(
        self, rate: float = 0.01, rate_updates: int = 5, name: str = "layer_sgd", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        LayerSGDOptions(rate, rate_updates)  # checks them
        self.initial_rate, self.rate_updates = rate, rate_updates

    def build(self, blocks: Blocks) -> None:
        """Creates a rate for each tensor and update."""
        self.blocks = blocks
        initial = keras.initializers.Constant(self.initial_rate)
        shape = (self.rate_updates, len(blocks))
        self.rate = self.add_weight(shape=shape, initializer=initial, name="rate")
        self.built = True

    def rates(self, theta: Tensor, updates: Tensor) -> Tensor:
        """Returns the rate of each coordinate, after `updates` updates, [P]."""
        row = row_of(updates, self.rate_updates)
        return of_blocks(tf.convert_to_tensor(self.rate)[row], self.blocks, theta)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {"rate": self.initial_rate, "rate_updates": self.rate_updates}
        return {**super().get_config(), **own}
