"""The protocol of starts: theta_0, where a task begins.

    theta_0 = start.theta_0(learner, support, num_way)

A start is a Keras layer. Its weights are meta-parameters. It may look at the support set, as a
head made of the means of the classes does, or not, as the learned c_0 of the meta-LSTM.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import keras

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.options import Options
from tf_metalstm.parts import Part


class Start(keras.layers.Layer, abc.ABC):
    """Returns the parameters theta_0 from which the adaptation to a task starts.

    `build` takes the learner, a `FunctionalLearner`.
    """

    family: ClassVar[str] = "start"
    part: ClassVar[Part]

    any_way: ClassVar[bool] = False
    """Whether theta_0 has a row of the last layer for each class of the episode, however many.

    Its learner is then an `AnyWayLearner`, else a `FunctionalLearner`.
    """

    num_outputs: int | None = None
    """Outputs of a learner that has a fixed number; None for as many as the tasks need."""

    @classmethod
    def from_options(cls, options: Options) -> Start:
        """Returns the start that its options say, not built yet."""
        raise NotImplementedError(f"{cls.__name__} says how it is built in from_options.")

    @abc.abstractmethod
    def build(self, learner: FunctionalLearner) -> None:
        """Creates the weights, for this learner with its initial parameters."""

    @abc.abstractmethod
    def theta_0(
        self, learner: FunctionalLearner, support: Support, num_way: Tensor | int
    ) -> Tensor:
        """Returns the parameters before the first update of an episode, [P].

        Args:
            learner: whose parameters they are.
            support: of the episode.
            num_way: N, its classes; not to be looked at where the task is no classification.
        """

    @abc.abstractmethod
    def is_symmetric(self, learner: FunctionalLearner) -> bool:
        """Returns whether theta_0 treats all classes alike, whatever their order."""

    def begin(self, learner: FunctionalLearner, network: keras.Model | None, whole: bool) -> None:
        """Sets fresh weights to those that a run starts from.

        Args:
            learner: whose parameters they are of.
            network: a trained network to begin at, or None. Its last layer told other classes
                apart and stays out.
            whole: the other weights of the method come from a trained run of the same kind.

        Raises:
            ValueError: it cannot begin there.
        """

    def learner(self, network: keras.Model, second_order: bool = False) -> FunctionalLearner:
        """Returns a network as the function of theta that this start is for.

        Args:
            network: a built Keras model.
            second_order: see `FunctionalLearner`.
        """
        return FunctionalLearner(network, second_order)

    def get_build_config(self) -> dict[str, Any] | None:
        """Returns nothing: the method that it belongs to builds it."""
        return None
