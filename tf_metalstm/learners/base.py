"""The base class of learners, which build Keras networks from options, and shared options."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from tf_metalstm.options import Options, option
from tf_metalstm.parts import Part

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""Precision in options -> Keras's dtype policy."""


@dataclass(frozen=True)
class NetworkOptions(Options):
    """Options of every network of this package."""

    batch_norm_scale: bool = option(
        True, "Give batch norm a learned scale, gamma.", alike=True, settled=True
    )
    statistics_momentum: float | None = option(
        None,
        "Weight of the old value in the running statistics of batch norm; default: 0.05 for "
        "gradient_based, which collects them in each episode, 0.99 otherwise. With 1 they stay "
        "constant.",
        at_least=0,
        at_most=1,
    )
    learner_precision: str = option(
        "float32",
        "Number type of computations in the learner; parameters and rule always have float32.",
        choices=tuple(PRECISIONS),
    )

    def network_arguments(self, statistics_momentum: float) -> dict:
        """Returns the arguments for a function that builds a network.

        Args:
            statistics_momentum: momentum of batch norm if the option is not set.
        """
        chosen = self.statistics_momentum
        return {
            "batch_norm_scale": self.batch_norm_scale,
            "statistics_momentum": statistics_momentum if chosen is None else chosen,
            "dtype": PRECISIONS[self.learner_precision],
        }


class Learner(abc.ABC):
    """A kind of network. There are no instances; the class method builds Keras models."""

    family: ClassVar[str] = "learner"
    part: ClassVar[Part]

    @classmethod
    def settled(cls, options: Any, source: str) -> dict[str, Any]:
        """Returns values for options of the source that the user has not set, by name.

        Args:
            options: options of this learner.
            source: name of the source of the images.

        Raises:
            OptionError: the learner must not be used with this source.
        """
        del options, source
        return {}

    @classmethod
    def check_images(cls, options: Any, normalization: str | None) -> None:
        """Checks the normalization of the images.

        Raises:
            OptionError: the learner needs another normalization.
        """
        del options, normalization

    @classmethod
    @abc.abstractmethod
    def from_options(
        cls,
        options: Options,
        input_shape: tuple[int, ...],
        num_outputs: int,
        statistics_momentum: float,
    ) -> keras.Model:
        """Returns a network with new weights, whose last layer is linear.

        Args:
            options: options of this learner.
            input_shape: shape of one input, (h, w, c) for images.
            num_outputs: number of outputs of the last layer.
            statistics_momentum: momentum of batch norm if the options do not set it.
        """
