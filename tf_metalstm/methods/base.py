"""The base class of methods: a method is a Keras model over tasks.

    outputs = method(tasks)      tasks go in; the objective scores what comes out

So `compile`, `fit`, metrics, callbacks, distribution strategies and checkpoints are those of Keras.
The weights of the model are learned across tasks. `FewShotMethod` is for episodes: tasks with a
support set and queries. `LearnedOptimizerMethod` is for tasks whose losses are the score.
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
    """Builds the other parts that a method needs; see `tf_metalstm.construction`.

    Attributes:
        tasks: the tasks that the method is for. They have `objective` and, depending on their kind,
            `input_shape`, `num_outputs`, `training_way`, `num_training_classes`, or `blocks` and
            `problem`.
    """

    tasks: Any

    def network(self, num_outputs: int, statistics_momentum: float) -> keras.Model:
        """Returns the network of the learner.

        Args:
            num_outputs: number of outputs of its last layer.
            statistics_momentum: momentum of batch norm, if the options do not set it.
        """

    def rule(self) -> Rule:
        """Returns the rule; it is not built yet."""

    def start(self) -> Start:
        """Returns the start; it is not built yet."""

    def num_outputs(self, chosen: int | None) -> int:
        """Returns the number of outputs of the learner.

        Args:
            chosen: the number in the options; None for the number that the tasks need.
        """


LOSSES = "losses"
"""Name in a trace of the losses before each update, [T]."""


@dataclass(frozen=True)
class TrainedOptions(Options):
    """Options of every method that has weights to train."""

    pretrained_run_dir: str | None = option(
        None,
        "Folder of a trained run or of an exported model; this run starts from its weights. It "
        "must have the same method, or nearest_neighbor, whose network then initializes c_0 or "
        "the embedding.",
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
    """The kinds of tasks that the method takes."""

    starts_from: ClassVar[tuple[str, ...]] = ()
    """Names of other methods whose trained weights it can start from."""

    differs_from_start: ClassVar[tuple[str, ...]] = ()
    """Options of the network in which it may differ from such another method."""

    is_trained: ClassVar[bool] = True
    """Whether the method has weights that training changes."""

    is_episodic: ClassVar[bool] = False
    """Whether the method is trained on episodes: tasks with a support set and queries."""

    statistics_momentum: ClassVar[float] = 0.99
    """Default momentum of batch norm: running statistics of a training change slowly."""

    idle_after_training: ClassVar[tuple[str, ...]] = ("statistics_momentum",)
    """Options of its parts that have no effect after training; others say so themselves."""

    query_normalization: str | None = None
    """How queries are normalized; None for a method without this option."""

    def __init__(self, objective: Objective, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.objective = objective

    @classmethod
    @abc.abstractmethod
    def from_options(cls, options: Any, builder: Builder) -> Method:
        """Returns the method with fresh weights.

        Args:
            options: the options of this method.
            builder: builds the other parts that it needs.
        """

    @classmethod
    def settled(cls, options: Any, tasks: Any) -> dict[str, Any]:
        """Returns the values of options whose default depends on method and tasks, by name.

        Args:
            options: the options of this method.
            tasks: the tasks of its training.
        """
        del options, tasks
        return {"statistics_momentum": cls.statistics_momentum}

    @classmethod
    def training_stream(cls, options: Any, tasks: Tasks, seed: int) -> Episodes:
        """Returns the tasks of the training, an endless list, as a function of their number."""
        del options
        return tasks.episodes("train", seed, training=True)

    def begin(self, pretrained: Method | None) -> None:
        """Sets the first weights of a training.

        Args:
            pretrained: a trained method whose weights are taken: the same method or one in
                `starts_from`. None keeps the fresh weights.

        Raises:
            ValueError: its weights do not fit.
        """
        if pretrained is not None:
            copy_weights(self.weights, pretrained)

    def get_compile_config(self) -> None:
        """Returns None: a method is saved as a Keras model for use. Training has checkpoints."""
        return None

    def training_loss(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns the loss that training minimizes, a scalar; default: that of the objective.

        Args:
            labels: labels of the tasks of a step.
            outputs: what `call` returned for them in training.
        """
        return self.objective.loss(labels, outputs)

    @property
    def num_updates(self) -> int | None:
        """T outside meta-training; None for a method without updates."""
        return None

    @property
    def keeps_statistics(self) -> bool:
        """Whether its weights include running statistics of the training."""
        return bool(self.non_trainable_weights)

    @property
    def blocks(self) -> Blocks:
        """The tensors of theta, for figures; empty if the method has no theta."""
        return ()

    def trace(self, task: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns tensors to draw of the updates of one task, by name; may be {}.

        Args:
            task: the tensors of the task, as `call` takes them, without the leading E.

        Returns:
            `LOSSES` [T], and the trace of the rule in each update, [T, ...].
        """
        del task
        return {}

    def describe_normalization(self) -> str:
        """Returns the batch-norm mode in words, for reports."""
        return "none"

    def facts(self) -> dict[str, Any]:
        """Returns its entries in a manifest."""
        return {}


def copy_weights(own: list[keras.Variable], trained: keras.Model) -> None:
    """Copies weights, also running statistics, from another model by their names.

    Args:
        own: the weights to set; the other model may have more.
        trained: the model to copy from.

    Raises:
        ValueError: the other model does not have one of them, or has it in another shape.
    """
    # Not `variables`: they also contain the random states of dropout.
    known = {weight.path: weight for weight in trained.weights}
    for variable in own:
        weight = known.get(variable.path)
        if weight is None or tuple(weight.shape) != tuple(variable.shape):
            has = "nothing" if weight is None else f"shape {tuple(weight.shape)}"
            raise ValueError(
                f"The trained run has {has} for {variable.path}, which is "
                f"{tuple(variable.shape)} here: both runs need the same parts and options."
            )
        variable.assign(keras.ops.convert_to_numpy(weight))
