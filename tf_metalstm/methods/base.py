"""What a method is: a Keras model over tasks.

    outputs = method(tasks)      a task goes in, and what its objective judges comes out

So `compile`, `fit`, metrics, callbacks, distribution strategies and checkpoints are Keras's own.
What is learned across tasks is the model's weights. `FewShotMethod` is for episodes, tasks with a
support set and queries; `LearnedOptimizerMethod` for tasks that are judged by their own losses.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import keras

from tf_metalstm.data.episodes import Episodes
from tf_metalstm.data.tasks import Tasks
from tf_metalstm.episode import Tensor
from tf_metalstm.objectives import Objective
from tf_metalstm.options import Options, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.rules.base import Rule
from tf_metalstm.starts.base import Start


class Builder(Protocol):
    """Makes the members of other families that a method needs; see `tf_metalstm.construction`.

    Attributes:
        tasks: that the method is for: with `objective`, and, as their kind has them,
            `input_shape`, `num_outputs`, `training_way`, `num_training_classes`, or `blocks` and
            `problem`.
    """

    tasks: Any

    def network(self, num_outputs: int, statistics_momentum: float) -> keras.Model:
        """Returns the network of the learner.

        Args:
            num_outputs: of its last layer.
            statistics_momentum: of batch norm, where the options leave it open.
        """

    def rule(self) -> Rule:
        """Returns the rule, not built yet."""

    def start(self) -> Start:
        """Returns the start, not built yet."""

    def num_outputs(self, chosen: int | None) -> int:
        """Returns how many outputs a learner gets.

        Args:
            chosen: what the options say; None for as many as the tasks need.
        """


LOSSES = "losses"
"""Name in a trace of the losses before each update, [T]."""


@dataclass(frozen=True)
class TrainedOptions(Options):
    """Options of every method that has weights to train."""

    pretrained_run_dir: str | None = option(
        None,
        "Folder of a trained run or of an exported model whose weights this run starts from: of "
        "the same method, or of nearest_neighbor, whose network then initializes c_0 or the "
        "embedding.",
        settled=True,
        is_path=True,
    )


class Method(keras.Model, abc.ABC):
    """A model over tasks.

    Args:
        objective: what a task asks for.
    """

    family: ClassVar[str] = "method"
    part: ClassVar[Part]

    kinds: ClassVar[tuple[str, ...]]
    """The kinds of tasks that it takes."""

    starts_from: ClassVar[tuple[str, ...]] = ()
    """Methods, besides its own, at whose trained weights it can begin."""

    is_trained: ClassVar[bool] = True
    """Whether it has weights that training changes."""

    is_episodic: ClassVar[bool] = False
    """Whether it is trained on episodes, tasks with a support set and queries."""

    statistics_momentum: ClassVar[float] = 0.99
    """Of batch norm, where it is left open: running statistics of the training change slowly."""

    query_normalization: str | None = None
    """Which way to normalize queries was chosen; None where there is no choice."""

    def __init__(self, objective: Objective, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.objective = objective

    @classmethod
    @abc.abstractmethod
    def from_options(cls, options: Any, builder: Builder) -> Method:
        """Returns the method with fresh weights.

        Args:
            options: of this method.
            builder: makes members of the families that it needs.
        """

    @classmethod
    def settled(cls, options: Any, tasks: Any) -> dict[str, Any]:
        """Returns the values of options whose default depends on method and tasks, by name.

        Args:
            options: of this method.
            tasks: that it is to be trained on.
        """
        del options, tasks
        return {"statistics_momentum": cls.statistics_momentum}

    @classmethod
    def training_stream(cls, options: Any, tasks: Tasks, seed: int) -> Episodes:
        """Returns the endless stream of tasks that it is trained on, by their number."""
        del options
        return tasks.episodes("train", seed, training=True)

    def begin(self, pretrained: Method | None) -> None:
        """Sets fresh weights to those that a run starts from.

        Args:
            pretrained: a trained method, this one or one in `starts_from`; or None.

        Raises:
            ValueError: it cannot begin there.
        """
        if pretrained is not None:
            copy_weights(self.weights, pretrained)

    def training_loss(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns what training minimizes, a scalar: that of the objective, or one of its own.

        Args:
            labels: of a step of tasks.
            outputs: what `call` returned in training.
        """
        return self.objective.loss(labels, outputs)

    @property
    def num_updates(self) -> int | None:
        """T outside meta-training; None for a method that makes no updates."""
        return None

    @property
    def keeps_statistics(self) -> bool:
        """Whether running statistics of the training are part of its weights."""
        return bool(self.non_trainable_weights)

    @property
    def blocks(self) -> Blocks:
        """The tensors of theta, for figures; empty where nothing is adapted."""
        return ()

    def trace(self, task: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what can be drawn of the updates of one task, by name; {} if nothing.

        Args:
            task: its tensors, as `call` takes them, without the leading E.

        Returns:
            `LOSSES` [T], and what the rule shows of every update, [T, ...].
        """
        del task
        return {}

    def describe_normalization(self) -> str:
        """Returns the batch-norm mode in words, to stand beside every reported number."""
        return "none"

    def facts(self) -> dict[str, Any]:
        """Returns what a manifest says of it."""
        return {}


def copy_weights(own: list[keras.Variable], trained: keras.Model) -> None:
    """Sets weights, running statistics among them, to those of the same names in another model.

    Args:
        own: the weights to set; the other model may have more.
        trained: where they come from.

    Raises:
        ValueError: the other model lacks one, or has it in another shape.
    """
    # `weights` and not `variables`: those count the random states of dropout too.
    known = {weight.path: weight for weight in trained.weights}
    for variable in own:
        found = known.get(variable.path)
        if found is None or tuple(found.shape) != tuple(variable.shape):
            has = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise ValueError(
                f"The trained run has {has} for {variable.path}, which is "
                f"{tuple(variable.shape)} here: both runs need the same parts and options."
            )
        variable.assign(keras.ops.convert_to_numpy(found))
