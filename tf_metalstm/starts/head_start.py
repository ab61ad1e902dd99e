"""The base class of starts that make the last layer for the classes of the episode.

    theta_0 = (c_0, w_1, b_1, ..., w_N, b_N)

c_0 has the learned parameters of the features, the same for every task. The start makes a row
(w_k, b_k) for each class, all in the same way. So permuting the classes permutes the rows and the
answers. Any number of classes works, for example five in training and fifty in use.

    in words            code       shape
    c_0                 c_0        [P - N (D + 1)]
    w_k, b_k            rows       [N, D + 1]
    f(x)                features   [B, D]
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import keras
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.any_way import AnyWayLearner
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.options import option
from tf_metalstm.starts.network_start import NetworkStart, NetworkStartOptions


@dataclass(frozen=True)
class HeadStartOptions(NetworkStartOptions):
    """Options of starts that make a row of the last layer for each class."""

    unit_features: bool = option(
        False,
        "Scale the features to length 1 before the last layer, so that only their direction "
        "counts.",
        alike=True,
        settled=True,
    )


class HeadStart(NetworkStart, abc.ABC):
    """Learned features, and a row of the last layer for each class.

    Args:
        learn_c_0: see `NetworkStart`.
        kernel_scale: see `NetworkStart`.
        unit_features: whether features are scaled to length 1.
        **kwargs: further arguments of `NetworkStart`.
    """

    any_way: ClassVar[bool] = True

    def __init__(
        self,
        learn_c_0: bool = True,
        kernel_scale: float = 1.0,
        unit_features: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learn_c_0, kernel_scale, **kwargs)
        self.unit_features = unit_features

    @classmethod
    def from_options(cls, options: HeadStartOptions) -> Self:  # type: ignore[override]
        return cls(options.learn_c_0, options.kernel_scale, options.unit_features)

    def build(self, learner: FunctionalLearner) -> None:
        """Creates c_0 and the weights of the rows."""
        self.add_c_0(learner, learner.initial_parameters()[: learner.num_before_last_layer()])
        self.add_head(learner)
        self.built = True

    def add_head(self, learner: FunctionalLearner) -> None:
        """Creates the weights that the rows depend on; here there are none."""

    @abc.abstractmethod
    def rows(self, learner: AnyWayLearner, support: Support, num_way: Tensor | int) -> Tensor:
        """Returns w_k and b_k of N classes, [N, D + 1].

        Args:
            learner: the learner whose last layer consists of the rows.
            support: the support set of the episode.
            num_way: N.
        """

    def theta_0(self, learner: Any, support: Support, num_way: Tensor | int) -> Tensor:
        """Returns c_0 and the rows of N classes, [P]; the learner is an `AnyWayLearner`."""
        c_0 = tf.convert_to_tensor(self.c_0)
        return learner.with_head(c_0, self.rows(learner, support, num_way))

    def support_features(self, learner: AnyWayLearner, support: Support) -> Tensor:
        """Returns the features of the support images at c_0, as in a support pass, [B, D]."""
        body, statistics = tf.convert_to_tensor(self.c_0), learner.initial_statistics()
        return learner.features(body, statistics, support.inputs, training=True)[0]

    def is_symmetric(self, learner: FunctionalLearner) -> bool:
        """Returns True."""
        del learner
        return True

    def learner(self, network: keras.Model, second_order: bool = False) -> AnyWayLearner:
        """Returns a network with one output as a function of theta with a row for each class."""
        return AnyWayLearner(network, second_order, self.unit_features)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "unit_features": self.unit_features}
