"""Keras's optimizers on the problems of a learned one, each at its best learning rate.

All problems of a list are minimized together, because most optimizers treat each number by itself.
Muon treats matrices as a whole, so for Muon each problem has its own variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.data.tasks import ProblemTasks
from tf_metalstm.episode import Tensor
from tf_metalstm.graphs import graph_function
from tf_metalstm.parameters import Blocks

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
"""Learning rates to try first; then two near the best one are tried."""

_BETWEEN = 10.0**0.25  # factor from the best rate to the two near it


@dataclass(frozen=True)
class Baseline:
    """An optimizer of Keras.

    name: its name in tables.
    make: returns the optimizer for a learning rate; its other options are the defaults.
    needs_matrices: whether it treats matrices as a whole.
    judged_at: (optimizer, its variables) -> the values that a user would keep, if these are not
        the variables themselves.
    """

    name: str
    make: Callable[[float], keras.optimizers.Optimizer]
    needs_matrices: bool = False
    judged_at: Callable[[Any, list[Any]], list[Tensor]] | None = None


def _average(optimizer: Any, variables: list[Any]) -> list[Tensor]:
    """Returns x of Schedule-Free AdamW, whose variables are y = (1 - beta_1) z + beta_1 x."""
    beta = optimizer.beta_1
    return [
        (y.value - (1.0 - beta) * z.value) / beta
        for y, z in zip(variables, optimizer._momentums, strict=True)
    ]


BASELINES = (
    Baseline("SGD", lambda rate: keras.optimizers.SGD(rate)),
    Baseline("momentum", lambda rate: keras.optimizers.SGD(rate, momentum=0.9)),
    Baseline("Nesterov", lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)),
    Baseline("Adam", lambda rate: keras.optimizers.Adam(rate)),
    Baseline("RMSprop", lambda rate: keras.optimizers.RMSprop(rate)),
    Baseline("Lion", lambda rate: keras.optimizers.Lion(rate)),
    Baseline(
        "Schedule-Free AdamW",
        lambda rate: keras.optimizers.ScheduleFreeAdamW(rate),
        judged_at=_average,
    ),
    Baseline(
        "Muon",
        lambda rate: keras.optimizers.Muon(rate, weight_decay=None, adam_weight_decay=None),
        needs_matrices=True,
    ),
)
"""The optimizers to compare with. None has weight decay, so that of Muon is switched off."""


class Minimizer:
    """One of Keras's optimizers on a list of problems, for any learning rate.

    Args:
        baseline: the optimizer.
        tasks: the tasks of the problems, which know their loss.
        inputs: tensors of E problems, with theta_0 [E, P].
        num_steps: T.
    """

    def __init__(
        self,
        baseline: Baseline,
        tasks: ProblemTasks,
        inputs: Mapping[str, Tensor],
        num_steps: int,
    ) -> None:
        self._tasks, self._inputs, self._num_steps = tasks, dict(inputs), num_steps
        self._judged_at, self._one_by_one = baseline.judged_at, baseline.needs_matrices
        self._num_problems = int(inputs["theta_0"].shape[0])
        self._variables = _variables(inputs["theta_0"], tasks.blocks, baseline.needs_matrices)
        self._optimizer = baseline.make(1.0)
        self._optimizer.build(self._variables)
        everything = [*self._variables, *self._optimizer.variables]
        self._beginning = [(each, keras.ops.convert_to_numpy(each)) for each in everything]
        self._run = graph_function(self._minimize)

    def losses(self, rate: float) -> np.ndarray:
        """Returns the losses of each problem before each update and after the last, [E, T + 1]."""
        for variable, value in self._beginning:
            variable.assign(value)
        self._optimizer.learning_rate.assign(rate)
        return self._run().numpy().T

    def _minimize(self) -> Tensor:
        """Returns all losses, [T + 1, E]."""
        curves = tf.TensorArray(tf.float32, self._num_steps + 1)

        def body(step: Tensor, carry: Any, curves: Any) -> tuple[Tensor, Any, Any]:
            with tf.GradientTape() as tape:
                values = [variable.value for variable in self._variables]
                losses, after = self._losses(values, carry, step)
                total = tf.reduce_sum(losses)
            gradients = tape.gradient(total, values)
            seen, _ = self._judged(losses, carry, step)
            self._optimizer.apply(gradients, self._variables)
            return step + 1, after, curves.write(step, seen)

        start = (0, self._initial_carry(), curves)
        step, carry, curves = tf.while_loop(lambda step, *_: step < self._num_steps, body, start)
        values = [variable.value for variable in self._variables]
        last, _ = self._losses(values, carry, step)
        return curves.write(step, self._judged(last, carry, step)[0]).stack()

    def _judged(self, losses: Tensor, carry: Any, step: Tensor) -> tuple[Tensor, Any]:
        if self._judged_at is None:
            return losses, carry
        return self._losses(self._judged_at(self._optimizer, self._variables), carry, step)

    def _losses(self, values: list[Tensor], carry: Any, step: Tensor) -> tuple[Tensor, Any]:
        """Returns the loss of each problem, [E], and the carry for the next step."""
        if self._one_by_one:
            flat = tf.concat([tf.reshape(value, [-1]) for value in values], axis=0)
            theta = tf.reshape(flat, [self._num_problems, -1])
        else:
            columns = [tf.reshape(value, [self._num_problems, -1]) for value in values]
            theta = tf.concat(columns, axis=1)

        def loss(inputs: tuple[Any, Tensor, Any]) -> tuple[Tensor, Any]:
            task, theta, carry = inputs
            return self._tasks.problem(task).loss(theta, carry, step)

        return tf.vectorized_map(loss, (self._inputs, theta, carry))

    def _initial_carry(self) -> Any:
        return tf.vectorized_map(
            lambda task: self._tasks.problem(task).initial_carry(), self._inputs
        )


def _variables(theta_0: Tensor, blocks: Blocks, one_by_one: bool) -> list[keras.Variable]:
    """Returns variables with E values of theta_0: [E, ...] for a block, or one for each problem."""
    values = np.array(theta_0)

    def parts(rows: np.ndarray) -> list[np.ndarray]:
        return [
            rows[..., each.start : each.start + each.size].reshape(*rows.shape[:-1], *each.shape)
            for each in blocks
        ]

    initial = [part for row in values for part in parts(row)] if one_by_one else parts(values)
    return [keras.Variable(value, dtype="float32") for value in initial]


def applicable(blocks: Blocks) -> tuple[Baseline, ...]:
    """Returns the optimizers that apply to a theta of these blocks; Muon needs matrices."""
    has_matrices = any(len(each.shape) == 2 for each in blocks)
    return tuple(each for each in BASELINES if has_matrices or not each.needs_matrices)


def search_rate(minimizer: Minimizer) -> tuple[float, dict[float, float]]:
    """Returns the rate with the lowest mean final loss, and the mean final loss of each rate.

    It tries the `RATES`, then two more near the best. A loss that is not a number counts as
    infinite.
    """
    final_losses = {rate: _final(minimizer, rate) for rate in RATES}
    best = min(final_losses, key=lambda rate: final_losses[rate])
    for rate in (best / _BETWEEN, best * _BETWEEN):
        final_losses[rate] = _final(minimizer, rate)
    return min(final_losses, key=lambda rate: final_losses[rate]), final_losses


def _final(minimizer: Minimizer, rate: float) -> float:
    mean = float(np.mean(minimizer.losses(rate)[:, -1], dtype=np.float64))
    return mean if np.isfinite(mean) else float("inf")
