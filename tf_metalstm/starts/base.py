"""The protocol of starts: a start gives theta_0, the first parameters of a task.

    theta_0 = start.theta_0(learner, support, num_way)

A start is a Keras layer. Its weights are meta-parameters. It may use the support set: the start
`prototypes` does, the learned c_0 of the meta-LSTM does not.
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
    """Whether theta_0 has a row of the last layer for each class, for any number of classes.

    If so, its learner is an `AnyWayLearner`, else a `FunctionalLearner`.
    """

    num_outputs: int | None = None
    """Number of outputs of a learner with a fixed number; None for what the tasks need."""

    @classmethod
    def from_options(cls, options: Options) -> Start:
        """Returns the start with these options; it is not built yet."""
        raise NotImplementedError(f"{cls.__name__} lacks from_options, which builds the start.")

    @abc.abstractmethod
    def build(self, learner: FunctionalLearner) -> None:
        """Creates the weights for this learner, which has its initial parameters."""

    @abc.abstractmethod
    def theta_0(
        self, learner: FunctionalLearner, support: Support, num_way: Tensor | int
    ) -> Tensor:
        """Returns the parameters before the first update of an episode, [P].

        Args:
            learner: the learner that the parameters belong to.
            support: the support set of the episode.
            num_way: N, the number of its classes; it has no meaning if the task is not
                classification.
        """

    @abc.abstractmethod
    def is_symmetric(self, learner: FunctionalLearner) -> bool:
        """Returns whether theta_0 treats all classes alike, in any order."""

    def begin(self, learner: FunctionalLearner, network: keras.Model | None, whole: bool) -> None:
        """Sets the first weights of a training.

        Args:
            learner: the learner that theta_0 belongs to.
            network: a trained network to copy, or None. Its last layer is not copied, because it
                belongs to other classes.
            whole: whether the other weights of the method come from a run of the same method.

        Raises:
            ValueError: the weights of the network do not fit.
        """

    def learner(self, network: keras.Model, second_order: bool = False) -> FunctionalLearner:
        """Returns a network as a function of theta, in the form that this start needs.

        Args:
            network: a built Keras model.
            second_order: see `FunctionalLearner`.
        """
        return FunctionalLearner(network, second_order)

    def get_build_config(self) -> dict[str, Any] | None:
        """Returns None: the method builds its start."""
        return None
