"""A learned optimizer: a rule that is trained on the losses it goes through.

Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NIPS 2016,
equation 3, with w_t = 1: the rule is trained to make

    sum over t of L(theta_t),   t = 0 ... T

small over problems that are drawn anew. There is neither support set nor query: a problem is
judged by its own losses.

    paper      code          shape
    f          problem.loss  theta [P] -> []
    theta_0    theta_0       [P], comes with the problem
    phi        the weights of the rule
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop, InnerLoopOptions, unroll
from tf_metalstm.data.catalogue import SOURCES
from tf_metalstm.data.tasks import PROBLEMS, ProblemTasks
from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import LOSSES, Builder, Method, TrainedOptions
from tf_metalstm.objectives import OPTIMIZATION
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.rules.base import Rule


@dataclass(frozen=True)
class LearnedOptimizerOptions(TrainedOptions, InnerLoopOptions):
    """Options of learned optimizers."""


@keras.saving.register_keras_serializable("tf_metalstm")
class LearnedOptimizerMethod(Method):
    """Minimizes problems by T updates of a rule, and is trained on the losses along the way.

    Its trainable weights are those of the rule.

    Args:
        rule: how theta moves; built here.
        tasks: the problems that it is for: what theta is made of, and what a task means.
        inner_loop: number of updates and the like.
        num_evaluation_steps: updates outside meta-training; None for as many as in it.
        name: of the model.

    Call arguments:
        inputs: a dict of theta_0 [E, P] and the tensors of E problems.
        training: True in meta-training.

    Returns:
        the losses L(theta_0) ... L(theta_T), [E, T + 1].
    """

    part = Part(
        "learned_optimizer",
        "Learned optimizer",
        "Andrychowicz et al., NIPS 2016",
        LearnedOptimizerOptions,
        needs=("rule",),
    )
    kinds: ClassVar[tuple[str, ...]] = (PROBLEMS,)

    def __init__(
        self,
        rule: Rule,
        tasks: ProblemTasks,
        inner_loop: InnerLoop,
        num_evaluation_steps: int | None = None,
        name: str = "learned_optimizer",
        **kwargs: Any,
    ) -> None:
        super().__init__(OPTIMIZATION, name=name, **{"dtype": rule.dtype_policy, **kwargs})
        self.inner_loop = self.evaluation_loop = inner_loop
        if num_evaluation_steps is not None:
            self.evaluation_loop = dataclasses.replace(inner_loop, num_steps=num_evaluation_steps)
        self.tasks = tasks
        if not rule.built:
            rule.build(tasks.blocks)
        self.rule = rule
        self.built = True

    @classmethod
    def from_options(
        cls, options: LearnedOptimizerOptions, builder: Builder
    ) -> LearnedOptimizerMethod:
        return cls(
            builder.rule(),
            builder.tasks,
            options.inner_loop(),
            options.num_evaluation_steps,
        )

    def build(self, input_shape: Any = None) -> None:
        """Nothing left to do: no weight depends on the number of problems."""

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Minimizes each of the E problems."""
        loop = self.inner_loop if training else self.evaluation_loop
        return tf.map_fn(
            lambda task: self.optimize(task, loop)[0],
            dict(inputs),
            fn_output_signature=tf.TensorSpec([loop.num_steps + 1], self.compute_dtype),
        )

    def optimize(
        self, task: Mapping[str, Tensor], loop: InnerLoop
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Minimizes one problem.

        Args:
            task: its tensors by name, theta_0 [P] among them.
            loop: number of updates and the like.

        Returns:
            L(theta_0) ... L(theta_T), [T + 1], and what the rule shows of every update, [T, ...].
        """
        problem = self.tasks.problem(task)
        unrolled = unroll(self.rule, problem, task["theta_0"], loop)
        last, _ = problem.loss(unrolled.theta, unrolled.carry, loop.num_steps)
        losses = tf.concat([unrolled.trajectory.losses, [last]], axis=0)
        return losses, unrolled.trajectory.traces

    def trace(self, task: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the losses before each update, and what the rule shows of it."""
        losses, traces = self.optimize(task, self.evaluation_loop)
        return {LOSSES: losses[:-1], **traces}

    @property
    def num_updates(self) -> int:
        """T outside meta-training."""
        return self.evaluation_loop.num_steps

    @property
    def blocks(self) -> Blocks:
        """The tensors of theta."""
        return self.tasks.blocks

    def facts(self) -> dict[str, Any]:
        """Returns the rule."""
        return {"rule": type(self.rule).__name__}

    def get_config(self) -> dict[str, Any]:
        """Returns what makes an equal method with fresh weights."""
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "rule": keras.saving.serialize_keras_object(self.rule),
            "source": self.tasks.part.name,
            "source_options": dataclasses.asdict(self.tasks.options),
            "inner_loop": dataclasses.asdict(self.inner_loop),
            "num_evaluation_steps": self.evaluation_loop.num_steps,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> LearnedOptimizerMethod:
        """Returns a method from what `get_config` returned."""
        config = dict(config)
        source = SOURCES[config.pop("source")]
        tasks = source.from_options(source.part.options(**config.pop("source_options")))
        rule = keras.saving.deserialize_keras_object(config.pop("rule"), custom_objects)
        return cls(rule, tasks, InnerLoop(**config.pop("inner_loop")), **config)
