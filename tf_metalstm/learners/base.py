"""The protocol of learners: Keras networks built from options, and the options they share."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from tf_metalstm.options import Options, option
from tf_metalstm.parts import Part

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""What an option calls a precision -> the policy of Keras."""


@dataclass(frozen=True)
class NetworkOptions(Options):
    """Options of every network that is built here."""

    batch_norm_scale: bool = option(
        True, "Batch norm has a learned scale, gamma.", alike=True, settled=True
    )
    statistics_momentum: float | None = option(
        None,
        "Momentum of the running statistics of batch norm, the weight of their old value; default: "
        "0.05 for gradient_based, which collects them in each episode, 0.99 otherwise. With 1 they "
        "stay.",
        at_least=0,
        at_most=1,
    )
    learner_precision: str = option(
        "float32",
        "Number type of the computations in the learner; parameters and rule are always float32.",
        choices=tuple(PRECISIONS),
    )

    def network_arguments(self, statistics_momentum: float) -> dict:
        """Returns what the functions that build a network take of these.

        Args:
            statistics_momentum: the one to use where none was chosen.
        """
        chosen = self.statistics_momentum
        return {
            "batch_norm_scale": self.batch_norm_scale,
            "statistics_momentum": statistics_momentum if chosen is None else chosen,
            "dtype": PRECISIONS[self.learner_precision],
        }


class Learner(abc.ABC):
    """A kind of network. It has no instances: its class method builds Keras models."""

    family: ClassVar[str] = "learner"
    part: ClassVar[Part]

    @classmethod
    def settled(cls, options: Any, source: str) -> dict[str, Any]:
        """Returns what it wants of images where the options of the source leave it open, by name.

        Args:
            options: of this learner.
            source: name of the source that the images are from.

        Raises:
            OptionError: it must not see images of that source.
        """
        del options, source
        return {}

    @classmethod
    def check_images(cls, options: Any, normalization: str | None) -> None:
        """Checks what the images go through before they reach it.

        Raises:
            OptionError: it is made for others.
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
        """Builds a network with fresh weights, its last layer a linear one.

        Args:
            options: of this learner.
            input_shape: of one input, (h, w, c) for images.
            num_outputs: outputs of the last layer.
            statistics_momentum: of batch norm, where the options leave it open.
        """
