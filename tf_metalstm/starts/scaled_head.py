"""The base class of starts that compute the last layer from the support set."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, Self

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.options import option
from tf_metalstm.starts.head_start import HeadStart, HeadStartOptions


@dataclass(frozen=True)
class ScaledHeadOptions(HeadStartOptions):
    """Options of starts whose rows are computed from the support set."""

    head_scale: float | None = option(
        None,
        "Initial value of the learned factor on the logits before the first update; default: 10 "
        "with unit_features, else 1.",
        above=0,
        settled=True,
    )


class ScaledHead(HeadStart, abc.ABC):
    """Rows that are computed from the support set, times a learned factor s.

    Args:
        learn_c_0: see `NetworkStart`.
        kernel_scale: see `NetworkStart`.
        unit_features: see `HeadStart`.
        head_scale: initial value of s; None for 10 with `unit_features`, else 1.
        **kwargs: further arguments of `HeadStart`.
    """

    def __init__(
        self,
        learn_c_0: bool = True,
        kernel_scale: float = 1.0,
        unit_features: bool = False,
        head_scale: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learn_c_0, kernel_scale, unit_features, **kwargs)
        ScaledHeadOptions(head_scale=head_scale)  # checks it
        self.head_scale = head_scale

    @classmethod
    def from_options(cls, options: ScaledHeadOptions) -> Self:  # type: ignore[override]
        return cls(
            options.learn_c_0, options.kernel_scale, options.unit_features, options.head_scale
        )

    def add_head(self, learner: FunctionalLearner) -> None:
        """Creates the logarithm of s."""
        usual = 10.0 if self.unit_features else 1.0
        scale = usual if self.head_scale is None else self.head_scale
        initial = keras.initializers.Constant(math.log(scale))
        self.log_scale = self.add_weight(
            shape=(), initializer=initial, dtype=learner.dtype, name="log_scale"
        )

    def scale(self) -> Tensor:
        """Returns s."""
        return tf.exp(tf.convert_to_tensor(self.log_scale))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "head_scale": self.head_scale}
