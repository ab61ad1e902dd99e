"""c_0: one learned vector of parameters from which every task starts.

Ravi & Larochelle, ICLR 2017, section 3.2: the initial cell state of the meta-learner LSTM; also
what MAML and Meta-SGD learn. It may be frozen, wholly or in its last layer.

    paper   code   shape
    c_0     c_0    [P]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.options import OptionError, Options, option
from tf_metalstm.parts import Part
from tf_metalstm.starts.base import Start


@dataclass(frozen=True)
class LearnedStartOptions(Options):
    """Options of c_0."""

    learn_c_0: bool = option(
        True, "Train c_0; otherwise it keeps its initial values.", settled=True
    )
    learn_linear: bool = option(
        True,
        "Train the last layer of c_0 too; otherwise it keeps its initial values.",
        settled=True,
        alike=True,
        only_with={"learn_c_0": True},
    )
    kernel_scale: float = option(
        1.0,
        "Factor on the initial convolution kernels of c_0. An update changes the direction of a "
        "larger kernel less.",
        above=0,
        settled=True,
    )


@keras.saving.register_keras_serializable("tf_metalstm")
class LearnedStart(Start):
    """c_0, the same for every task.

    Args:
        learn_c_0: whether it is a meta-parameter; else it stays where it starts.
        learn_linear: whether the last layer of it is one too. Which class is which output is drawn
            anew for every episode. So whatever training finds for one output and not for another
            is noise of the last episodes, which Adam makes as large as any signal.
        kernel_scale: factor on the convolution kernels when a run begins. Batch norm takes it back
            in what they compute. Their gradient is divided by it, so that an update of a given
            learning rate turns them by its square less, and the linear layer, which no batch norm
            follows, as before. A first-order meta-gradient cannot find such a scale: it does not
            know that the gradient depends on theta.
        name: fixed, and with it the name of the weight in a checkpoint.
    """

    part = Part("c_0", "One learned vector", "Ravi & Larochelle, ICLR 2017", LearnedStartOptions)

    def __init__(
        self,
        learn_c_0: bool = True,
        learn_linear: bool = True,
        kernel_scale: float = 1.0,
        name: str = "gradient_based_method",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        LearnedStartOptions(learn_c_0, learn_linear, kernel_scale)  # checks them
        self.learn_c_0, self.learn_linear = learn_c_0, learn_linear
        self.kernel_scale = kernel_scale

    @classmethod
    def from_options(cls, options: LearnedStartOptions) -> LearnedStart:  # type: ignore[override]
        return cls(options.learn_c_0, options.learn_linear, options.kernel_scale)

    def build(self, learner: FunctionalLearner) -> None:
        """Creates c_0 with the initial parameters of the network."""
        start = learner.initial_parameters()
        self.num_learned = start.size if self.learn_linear else learner.num_before_last_layer()
        self.c_0 = self.add_weight(
            shape=start.shape,
            initializer=lambda shape, dtype: tf.constant(start),
            dtype=learner.dtype,
            trainable=self.learn_c_0,
            name="c_0",
        )
        self.built = True

    def theta_0(self, learner: FunctionalLearner, support: Support) -> Tensor:
        """Returns c_0, whatever the support set is."""
        del support
        c_0 = tf.convert_to_tensor(self.c_0)
        if self.num_learned == learner.num_parameters:
            return c_0
        learned, frozen = c_0[: self.num_learned], c_0[self.num_learned :]
        return tf.concat([learned, tf.stop_gradient(frozen)], axis=0)

    def is_symmetric(self, learner: FunctionalLearner) -> bool:
        """Returns whether all outputs of the last layer have the same weights."""
        values = self.c_0.numpy()
        for block in learner.last_layer_blocks():
            rows = values[block.start : block.start + block.size].reshape(block.shape)
            if np.any(rows != rows[..., :1]):
                return False
        return True

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
            self._take_over(values, learner, network)
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

    def _take_over(
        self, values: np.ndarray, learner: FunctionalLearner, network: keras.Model
    ) -> None:
        trained = {weight.path: weight for weight in network.weights}
        end = learner.num_before_last_layer()
        for block in learner.parameter_blocks:
            if block.start >= end:
                break
            found = trained.get(block.name)
            if found is None or tuple(found.shape) != block.shape:
                has = "nothing" if found is None else f"shape {tuple(found.shape)}"
                raise ValueError(
                    f"The trained network has {has} for {block.name}, which is {block.shape} here: "
                    "both runs need the same network."
                )
            weights = keras.ops.convert_to_numpy(found).ravel()
            values[block.start : block.start + block.size] = weights

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {
            "learn_c_0": self.learn_c_0,
            "learn_linear": self.learn_linear,
            "kernel_scale": self.kernel_scale,
        }
        return {**super().get_config(), **own}
