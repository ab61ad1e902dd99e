"""The base class of starts that learn c_0, parameters of the network."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.options import OptionError, Options, option
from tf_metalstm.starts.base import Start


@dataclass(frozen=True)
class NetworkStartOptions(Options):
    """Options of starts that learn parameters of the network."""

    learn_c_0: bool = option(
        True, "Train c_0; otherwise it keeps its initial values.", settled=True
    )
    kernel_scale: float = option(
        1.0,
        "Factor on the initial convolution kernels of c_0. An update changes the direction of a "
        "larger kernel less.",
        above=0,
        settled=True,
    )


class NetworkStart(Start, abc.ABC):
    """A start with a learned vector of parameters of the network, c_0.

    Args:
        learn_c_0: whether c_0 is a meta-parameter; else it keeps its initial values.
        kernel_scale: factor on the initial convolution kernels. Batch norm removes it from their
            outputs, and their gradient is divided by it. So an update with the same learning rate
            turns a kernel less, by the square of the factor. The linear layer is not affected,
            because no batch norm follows it. A first-order meta-gradient cannot learn such a
            scale, because it treats the gradient as independent of theta.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    def __init__(
        self,
        learn_c_0: bool = True,
        kernel_scale: float = 1.0,
        name: str = "gradient_based_method",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        NetworkStartOptions(learn_c_0, kernel_scale)  # checks them
        self.learn_c_0, self.kernel_scale = learn_c_0, kernel_scale

    def add_c_0(self, learner: FunctionalLearner, initial: np.ndarray) -> None:
        """Creates c_0 with the values `initial`, the first parameters of the learner."""
        self.c_0 = self.add_weight(
            shape=initial.shape,
            initializer=lambda shape, dtype: tf.constant(initial),
            dtype=learner.dtype,
            trainable=self.learn_c_0,
            name="c_0",
        )

    def begin(self, learner: FunctionalLearner, network: keras.Model | None, whole: bool) -> None:
        """Copies a network, except its last layer; then scales the kernels."""
        if whole and self.kernel_scale != 1.0:
            raise OptionError(
                "kernel_scale",
                f"is {self.kernel_scale:g}, which would scale what the other run has learned: give "
                "kernel_scale=1.",
            )
        values = self.c_0.numpy()
        if network is not None:
            _take_over(values, learner, network)
        if self.kernel_scale != 1.0:
            kernels = [block for block in learner.parameter_blocks if len(block.shape) == 4]
            if not kernels:
                raise OptionError(
                    "kernel_scale",
                    "is for a learner with convolutions, such as learner=conv4: leave it out.",
                )
            for block in kernels:
                values[block.start : block.start + block.size] *= self.kernel_scale
        self.c_0.assign(values)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {"learn_c_0": self.learn_c_0, "kernel_scale": self.kernel_scale}
        return {**super().get_config(), **own}


def _take_over(values: np.ndarray, learner: FunctionalLearner, network: keras.Model) -> None:
    trained = {weight.path: weight for weight in network.weights}
    end = learner.num_before_last_layer()
    for block in learner.parameter_blocks:
        if block.start >= end:
            break
        weight = trained.get(block.name)
        if weight is None or tuple(weight.shape) != block.shape:
            has = "nothing" if weight is None else f"shape {tuple(weight.shape)}"
            raise ValueError(
                f"The trained network has {has} for {block.name}, which is {block.shape} here: "
                "both runs need the same network."
            )
        weights = keras.ops.convert_to_numpy(weight).ravel()
        values[block.start : block.start + block.size] = weights
