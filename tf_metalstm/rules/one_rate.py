"""The base class of rules with one learning rate for all coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import Options, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.rules.base import Rule


@dataclass(frozen=True)
class RateOptions(Options):
    """Options of every rule with one learning rate."""

    inner_rate: float = option(0.01, "Learning rate of an update.", above=0)
    learn_inner_rate: bool = option(
        False, "Train the learning rate as a meta-parameter.", settled=True, alike=True
    )


class OneRateRule(Rule):
    """A rule with one learning rate.

    Args:
        rate: the learning rate.
        learned: whether the rate is a meta-parameter, which starts at `rate`.
        name: name of the rule; default: that of its part. Weights in checkpoints are found by it.
    """

    uses_loss = False

    def __init__(
        self, rate: float = 0.01, learned: bool = False, name: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(name=name or self.part.name, **kwargs)
        RateOptions(rate, learned)  # checks them
        self.rate = rate
        self.learned = learned

    def build(self, blocks: Blocks = ()) -> None:
        """Creates the rate if it is learned; it does not depend on theta."""
        del blocks
        if self.learned:
            initial = keras.initializers.Constant(self.rate)
            self.learned_rate = self.add_weight(shape=(), initializer=initial, name="rate")
        self.built = True

    def current_rate(self) -> Tensor | float:
        """Returns the rate, a scalar."""
        return tf.convert_to_tensor(self.learned_rate) if self.learned else self.rate

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "rate": self.rate, "learned": self.learned}
