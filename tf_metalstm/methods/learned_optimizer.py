"""A learned optimizer: a rule that is trained on the losses along its path.

Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NIPS 2016,
equation 3: the rule is trained to make

    sum over t of w_t L(theta_t),   t = 0 ... T

small over problems that are drawn anew. There are no support sets and queries: the losses of a
problem are the score.

A long run of T updates is trained in stretches of U updates (`--unroll_steps`). A task says where
its stretch starts. The present rule makes the updates before it, without a meta-gradient.

    paper      code          shape
    f          problem.loss  theta [P] -> []
    theta_0    theta_0       [P], belongs to the problem
    phi        the weights of the rule
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop, InnerLoopOptions, advance, unroll, unroll_in_loop
from tf_metalstm.data.catalogue import SOURCES
from tf_metalstm.data.tasks import PROBLEMS, ProblemTasks, Tasks
from tf_metalstm.data.training_problems import FIRST_STEP, SCALES, TrainingProblems
from tf_metalstm.episode import Tensor
from tf_metalstm.graphs import unconverted
from tf_metalstm.methods.base import LOSSES, Builder, Method, TrainedOptions
from tf_metalstm.objectives import OPTIMIZATION
from tf_metalstm.options import OptionError, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.problems import Problem, ScaledProblem
from tf_metalstm.rules.base import Rule

META_LOSSES = ("losses", "log_losses")
STEP_WEIGHTS = ("equal", "rising", "last")

_SMALLEST = 1e-6  # added to a loss before its logarithm


@dataclass(frozen=True)
class LearnedOptimizerOptions(TrainedOptions, InnerLoopOptions):
    """Options of learned optimizers."""

    unroll_steps: int | None = option(
        None,
        "U, the number of updates that a meta-gradient flows through: a random stretch of the "
        "num_steps updates of a problem; default: num_steps.",
        at_least=1,
        training_only=True,
    )
    meta_loss: str = option(
        "losses",
        "Training minimizes the losses, or their logarithms; with logarithms all problems count "
        "the same.",
        choices=META_LOSSES,
        training_only=True,
    )
    step_weights: str = option(
        "equal",
        "Weights of the losses after each update in training: equal, rising, or only the last "
        "loss.",
        choices=STEP_WEIGHTS,
        training_only=True,
    )
    coordinate_scaling: float = option(
        0.0,
        "In training each coordinate of a problem is scaled by exp(x), with x uniform between "
        "minus this number and this number; 0: no scaling.",
        at_least=0,
        training_only=True,
    )

    curriculum_problems: int | None = option(
        None,
        "Number of training problems after which the runs become twice as long, from unroll_steps "
        "updates up to num_steps; default: num_steps from the start.",
        at_least=1,
        training_only=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.curriculum_problems is not None and self.unroll_steps in (None, self.num_steps):
            raise OptionError(
                "curriculum_problems",
                f"lengthens runs from unroll_steps to num_steps, {self.num_steps}: set a smaller "
                "unroll_steps, or leave it out.",
            )
        if self.unroll_steps is not None and self.num_steps % self.unroll_steps:
            raise OptionError(
                "unroll_steps",
                f"must divide num_steps, {self.num_steps}, got {self.unroll_steps}.",
            )


def step_weights(kind: str, num_losses: int) -> np.ndarray:
    """Returns the weight of each loss, [num_losses]; their sum is 1.

    >>> step_weights("rising", 3)
    array([0.  , 0.333..., 0.666...])
    """
    weights = {
        "equal": np.ones(num_losses),
        "rising": np.arange(num_losses, dtype=np.float64) + (num_losses == 1),
        "last": np.arange(num_losses) == num_losses - 1,
    }[kind]
    return weights / weights.sum()


@keras.saving.register_keras_serializable("tf_metalstm")
class LearnedOptimizerMethod(Method):
    """Minimizes problems by T updates of a rule; training minimizes the losses after them.

    Its trainable weights are those of the rule.

    Args:
        rule: the rule that updates theta; it is built here.
        tasks: the problems: they know the blocks of theta and the loss of a task.
        inner_loop: options of the inner loop, such as the number of updates.
        num_evaluation_steps: updates outside meta-training; None for the same number.
        unroll_steps: U; None for all T.
        meta_loss: "losses" or "log_losses": what training minimizes.
        step_weights: "equal", "rising" or "last": the weights of the losses.
        name: of the model.

    Call arguments:
        inputs: a dict of theta_0 [E, P] and the tensors of E problems; of training problems, see
            `tf_metalstm.data.training_problems`.
        training: True in meta-training.

    Returns:
        the losses L(theta_0) ... L(theta_T), [E, T + 1]; in training those of a stretch,
        [E, U + 1].
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
        unroll_steps: int | None = None,
        meta_loss: str = "losses",
        step_weights: str = "equal",
        name: str = "learned_optimizer",
        **kwargs: Any,
    ) -> None:
        super().__init__(OPTIMIZATION, name=name, **{"dtype": rule.dtype_policy, **kwargs})
        self.inner_loop = inner_loop
        self.evaluation_loop = inner_loop.with_steps(num_evaluation_steps)
        LearnedOptimizerOptions(  # checks them
            num_steps=inner_loop.num_steps,
            unroll_steps=unroll_steps,
            meta_loss=meta_loss,
            step_weights=step_weights,
        )
        self.unroll_steps = unroll_steps
        self.meta_loss, self.step_weights = meta_loss, step_weights
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
            options.unroll_steps,
            options.meta_loss,
            options.step_weights,
        )

    @classmethod
    def training_stream(
        cls, options: LearnedOptimizerOptions, tasks: Tasks, seed: int
    ) -> TrainingProblems:
        """Returns the problems of the training split, each with the stretch of its meta-update."""
        return TrainingProblems(
            tasks.episodes("train", seed, training=True),
            seed,
            options.num_steps,
            options.unroll_steps or max(options.num_steps, 1),
            options.coordinate_scaling,
            options.curriculum_problems,
        )

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: no weight depends on the number of problems."""

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Minimizes each of the E problems."""
        if not training:
            loop = self.evaluation_loop
            return self._of_each(lambda task: self.optimize(task, loop)[0], inputs, loop.num_steps)
        longest = tf.reduce_max(inputs[FIRST_STEP]) if FIRST_STEP in inputs else 0
        num_steps = self.unroll_steps or self.inner_loop.num_steps
        return self._of_each(lambda task: self._stretch(task, longest), inputs, num_steps)

    def training_loss(self, labels: Tensor, outputs: Tensor) -> Tensor:
        """Returns the weighted mean of the losses of a stretch, or of their logarithms."""
        del labels
        if self.meta_loss == "log_losses":
            outputs = tf.math.log(tf.maximum(outputs, 0.0) + _SMALLEST)
        weights = tf.constant(step_weights(self.step_weights, outputs.shape[-1]), outputs.dtype)
        return tf.reduce_mean(tf.reduce_sum(weights * outputs, axis=-1))

    def optimize(
        self, task: Mapping[str, Tensor], loop: InnerLoop
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Minimizes one problem by a loop in the graph.

        Args:
            task: its tensors by name, with theta_0 [P].
            loop: options of the inner loop, such as the number of updates.

        Returns:
            L(theta_0) ... L(theta_T), [T + 1], and the trace of the rule in each update, [T, ...].
        """
        problem, theta_0 = self.problem(task)
        num_steps = tf.constant(loop.num_steps)
        unrolled = unroll_in_loop(self.rule, problem, theta_0, loop, num_steps)
        last, _ = problem.loss(unrolled.theta, unrolled.carry, num_steps)
        losses = tf.concat([unrolled.trajectory.losses, [last]], axis=0)
        return losses, unrolled.trajectory.traces

    def problem(self, task: Mapping[str, Tensor]) -> tuple[Problem, Tensor]:
        """Returns the problem of a task, and its theta_0 [P]."""
        problem: Problem = self.tasks.problem(task)
        if SCALES not in task:
            return problem, task["theta_0"]
        return ScaledProblem(problem, task[SCALES]), task["theta_0"] / task[SCALES]

    def _stretch(self, task: Mapping[str, Tensor], longest: Tensor | int) -> Tensor:
        """Returns the losses of the stretch of a training problem, [U + 1]."""
        problem, theta_0 = self.problem(task)
        loop, start, first = self.inner_loop, None, task.get(FIRST_STEP, 0)
        if self.unroll_steps not in (None, loop.num_steps):
            start = advance(self.rule, problem, theta_0, loop, first, longest)
            loop = loop.with_steps(self.unroll_steps)
        unrolled = unroll(self.rule, problem, theta_0, loop, start, first)
        last, _ = problem.loss(unrolled.theta, unrolled.carry, first + loop.num_steps)
        return tf.concat([unrolled.trajectory.losses, [last]], axis=0)

    @unconverted
    def _of_each(
        self,
        function: Callable[[Mapping[str, Tensor]], Tensor],
        inputs: Mapping[str, Tensor],
        num_steps: int,
    ) -> Tensor:
        """Returns the losses of E problems, [E, num_steps + 1], as one batch if possible."""
        if not self.inner_loop.recompute:
            losses = tf.vectorized_map(function, dict(inputs))
            return tf.ensure_shape(losses, [None, num_steps + 1])
        # tf.vectorized_map drops the gradient that tf.recompute_grad defines.
        of_one = tf.TensorSpec([num_steps + 1], self.compute_dtype)
        return tf.map_fn(function, dict(inputs), fn_output_signature=of_one)

    def trace(self, task: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the loss before each update, and the trace of the rule."""
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
        """Returns the config of an equal method with fresh weights."""
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "rule": keras.saving.serialize_keras_object(self.rule),
            "source": self.tasks.part.name,
            "source_options": dataclasses.asdict(self.tasks.options),
            "inner_loop": dataclasses.asdict(self.inner_loop),
            "num_evaluation_steps": self.evaluation_loop.num_steps,
            "unroll_steps": self.unroll_steps,
            "meta_loss": self.meta_loss,
            "step_weights": self.step_weights,
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
