"""A last layer that ridge regression fits to the support set.

Bertinetto, Henriques, Torr & Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR
2019; here its solution is the start of the updates. X are the features [f(x_i), 1] of the B support
images at c_0, and Y their classes, one-hot:

    (w_1, b_1; ...; w_N, b_N) = s W',   W = argmin 1/B |X W - Y|^2 + l |W|^2

The logarithms of s and l are learned. The meta-gradient flows through W into c_0.

    paper     code                  shape
    W         ridge_weights         [D + 1, N]
    lambda    exp(log_penalty)      []
    alpha     exp(log_scale)        []
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.any_way import AnyWayLearner
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.options import option
from tf_metalstm.parts import Part
from tf_metalstm.ridge import regression
from tf_metalstm.starts.scaled_head import ScaledHead, ScaledHeadOptions


@dataclass(frozen=True)
class RidgeStartOptions(ScaledHeadOptions):
    """Options of the start at a ridge regression."""

    head_penalty: float = option(
        0.1,
        "Initial value of the learned penalty on the weights of the regression.",
        above=0,
        settled=True,
    )


@keras.saving.register_keras_serializable("tf_metalstm")
class RidgeStart(ScaledHead):
    """The row of each class starts at that of a ridge regression.

    Args:
        learn_c_0: see `NetworkStart`.
        kernel_scale: see `NetworkStart`.
        unit_features: see `HeadStart`.
        head_scale: see `ScaledHead`.
        head_penalty: initial value of l.
        **kwargs: further arguments of `HeadStart`.
    """

    part = Part("ridge", "Ridge regression", "Bertinetto et al., ICLR 2019", RidgeStartOptions)

    def __init__(
        self,
        learn_c_0: bool = True,
        kernel_scale: float = 1.0,
        unit_features: bool = False,
        head_scale: float | None = None,
        head_penalty: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(learn_c_0, kernel_scale, unit_features, head_scale, **kwargs)
        RidgeStartOptions(head_penalty=head_penalty)  # checks it
        self.head_penalty = head_penalty

    @classmethod
    def from_options(cls, options: RidgeStartOptions) -> RidgeStart:  # type: ignore[override]
        return cls(
            options.learn_c_0,
            options.kernel_scale,
            options.unit_features,
            options.head_scale,
            options.head_penalty,
        )

    def add_head(self, learner: FunctionalLearner) -> None:
        """Creates the logarithms of s and l."""
        super().add_head(learner)
        initial = keras.initializers.Constant(math.log(self.head_penalty))
        self.log_penalty = self.add_weight(
            shape=(), initializer=initial, dtype=learner.dtype, name="log_penalty"
        )

    def rows(self, learner: AnyWayLearner, support: Support, num_way: Tensor | int) -> Tensor:
        """Returns the rows of the regression, [N, D + 1]."""
        features = self.support_features(learner, support)
        penalty = tf.exp(tf.convert_to_tensor(self.log_penalty))
        weights = regression(features, support.labels, num_way, penalty)
        return self.scale() * tf.transpose(weights)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "head_penalty": self.head_penalty}
