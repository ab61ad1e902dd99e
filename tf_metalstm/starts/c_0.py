"""c_0: one learned vector of parameters from which every task starts.

Ravi & Larochelle, ICLR 2017, section 3.2: it is the initial cell state of the meta-learner LSTM.
MAML and Meta-SGD learn it too. All of it or its last layer can be frozen.

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
from tf_metalstm.options import option
from tf_metalstm.parts import Part
from tf_metalstm.starts.network_start import NetworkStart, NetworkStartOptions


@dataclass(frozen=True)
class LearnedStartOptions(NetworkStartOptions):
    """Options of c_0."""

    learn_linear: bool = option(
        True,
        "Train the last layer of c_0 too; otherwise it keeps its initial values.",
        settled=True,
        alike=True,
        only_with={"learn_c_0": True},
    )
    num_outputs: int | None = option(
        None,
        "Number of outputs of the learner; default: the largest N of training, validation and "
        "test.",
        at_least=1,
        alike=True,
        settled=True,
    )


@keras.saving.register_keras_serializable("tf_metalstm")
class LearnedStart(NetworkStart):
    """c_0, the same for every task.

    Args:
        learn_c_0: see `NetworkStart`.
        learn_linear: whether its last layer is a meta-parameter too. The classes of an episode are
            assigned to the outputs at random. So a difference between outputs is noise of the last
            episodes, and Adam makes it as large as any signal.
        kernel_scale: see `NetworkStart`.
        num_outputs: number of outputs of the learner; None for what the tasks need.
        name: leave it as it is: the weight in checkpoints is found by it.
    """

    part = Part("c_0", "One learned vector", "Ravi & Larochelle, ICLR 2017", LearnedStartOptions)

    def __init__(
        self,
        learn_c_0: bool = True,
        learn_linear: bool = True,
        kernel_scale: float = 1.0,
        num_outputs: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learn_c_0, kernel_scale, **kwargs)
        self.learn_linear, self.num_outputs = learn_linear, num_outputs

    @classmethod
    def from_options(cls, options: LearnedStartOptions) -> LearnedStart:  # type: ignore[override]
        return cls(
            options.learn_c_0, options.learn_linear, options.kernel_scale, options.num_outputs
        )

    def build(self, learner: FunctionalLearner) -> None:
        """Creates c_0 with the initial parameters of the network."""
        initial = learner.initial_parameters()
        self.num_learned = initial.size if self.learn_linear else learner.num_before_last_layer()
        self.add_c_0(learner, initial)
        self.built = True

    def theta_0(
        self, learner: FunctionalLearner, support: Support, num_way: Tensor | int
    ) -> Tensor:
        """Returns c_0; the support set is not used."""
        del support, num_way
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

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {"learn_linear": self.learn_linear, "num_outputs": self.num_outputs}
        return {**super().get_config(), **own}
