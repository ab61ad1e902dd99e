"""The inner loop: T updates of theta on one problem.

Algorithm 1 of the paper, lines 6 to 12. For t = 1 ... T:

    L_t      = problem.loss(theta_{t-1})
    grad_t   = d L_t / d theta_{t-1}
    theta_t, state_t = rule(stop(grad_t), stop(L_t), theta_{t-1}, state_{t-1})

stop() is the gradient independence assumption of section 3.3.1: the meta-gradient flows through
theta and the state of the rule, but not through the gradient of the learner. With `second_order`
there is no stop(), so the meta-gradient flows through everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import OptionError, Options, option
from tf_metalstm.problems import Problem
from tf_metalstm.rules.base import Rule


@dataclass(frozen=True)
class InnerLoop:
    """How the inner loop runs.

    num_steps: T, number of updates.
    second_order: whether the meta-gradient flows through the gradient.
    recompute: whether the meta-gradient computes the inside of the rule again instead of keeping
        it. Each update then only keeps the gradient, the loss, theta and the state of the rule:
        2 H + 4 numbers a coordinate for the meta-LSTM. The meta-gradient is the same; it takes
        less memory and more time.
    """

    num_steps: int = 5
    second_order: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise OptionError("num_steps", f"must be at least 0, got {self.num_steps}.")

    def with_steps(self, num_steps: int | None) -> InnerLoop:
        """Returns the same loop with another number of updates; None keeps the number."""
        return self if num_steps is None else dataclasses.replace(self, num_steps=num_steps)


@dataclass(frozen=True)
class UpdateOptions(Options):
    """Options of every method that makes a number of updates."""

    num_steps: int = option(5, "T, the number of updates of the inner loop.", at_least=0)
    num_evaluation_steps: int | None = option(
        None, "T in validation, test and export; default: num_steps.", at_least=0
    )


@dataclass(frozen=True)
class BatchOptions(Options):
    """Options of methods of which an update may see a part of the support set."""

    support_batch_size: int | None = option(
        None, "Largest number of support images of an update; default: all.", at_least=1
    )


@dataclass(frozen=True)
class InnerLoopOptions(UpdateOptions):
    """Options of every method that runs the inner loop."""

    second_order: bool = option(
        False, "Differentiate through the gradients of the inner loop as well.", training_only=True
    )
    recompute: bool = option(
        False,
        "Save memory with many updates: store less of each update and compute the rest again for "
        "the meta-gradient.",
        may_change=True,
        training_only=True,
    )

    def inner_loop(self) -> InnerLoop:
        """Returns the inner loop of the training."""
        return InnerLoop(self.num_steps, self.second_order, self.recompute)


class Trajectory(NamedTuple):
    """The losses and the traces of the inner loop.

    losses: L_1 ... L_T, the loss before each update, [T].
    traces: trace of the rule in each update, by name, [T, ...]; see `Rule.trace`.
    """

    losses: Tensor
    traces: dict[str, Tensor]


class Unrolled(NamedTuple):
    """The result of the inner loop.

    theta: theta_T, [P].
    carry: carry of the problem after the pass at theta_{T-1}.
    trajectory: losses and traces of all updates.
    """

    theta: Tensor
    carry: Any
    trajectory: Trajectory


class InnerState(NamedTuple):
    """The state of the inner loop between two updates.

    theta: parameters, [P].
    carry: carry of the problem.
    rule_state: state of the rule.
    """

    theta: Tensor
    carry: Any
    rule_state: Any


def begin(rule: Rule, problem: Problem, theta_0: Tensor) -> InnerState:
    """Returns the state before the first update, for theta_0 [P]."""
    return InnerState(theta_0, problem.initial_carry(), rule.initial_state(theta_0))


def unroll(
    rule: Rule,
    problem: Problem,
    theta_0: Tensor,
    options: InnerLoop,
    start: InnerState | None = None,
    first_step: Any = 0,
) -> Unrolled:
    """Runs the inner loop on one problem. The graph has a copy of the update for each step.

    In a graph, unused parts of the trajectory are not computed. A meta-gradient may be taken of the
    losses as well as of theta.

    Args:
        rule: the update rule.
        problem: the problem to minimize.
        theta_0: initial parameters, [P].
        options: number of updates and the like.
        start: state after earlier updates; None to start with the first update.
        first_step: number of earlier updates, an int or a scalar.
    """
    return unroll_with_states(rule, problem, theta_0, options, start, first_step)[0]


def unroll_with_states(
    rule: Rule,
    problem: Problem,
    theta_0: Tensor,
    options: InnerLoop,
    start: InnerState | None = None,
    first_step: Any = 0,
) -> tuple[Unrolled, list[InnerState]]:
    """Returns what `unroll` returns, and the state after each update."""
    update = _update(rule, problem, options)
    state = begin(rule, problem, theta_0) if start is None else start
    losses: list[Tensor] = []
    traces: list[dict[str, Tensor]] = []
    states: list[InnerState] = []
    for step in range(options.num_steps):
        state, loss = update(state, first_step + step)
        losses.append(loss)
        traces.append(rule.trace(state.rule_state))
        states.append(state)
    trajectory = _stacked(losses, traces, rule, theta_0)
    return Unrolled(state.theta, state.carry, trajectory), states


def advance(
    rule: Rule, problem: Problem, theta_0: Tensor, options: InnerLoop, num_steps: Any, longest: Any
) -> InnerState:
    """Returns the state after a number of updates, through which no meta-gradient flows.

    After no update it is the initial state of the rule, which may be learned.

    This is a loop of the graph. Problems in one batch may need different numbers of updates. The
    loop then runs for the longest, and each problem keeps its state after its own last update.

    Args:
        rule: the update rule.
        problem: the problem to minimize.
        theta_0: initial parameters, [P].
        options: how an update is made; its number of updates is ignored.
        num_steps: number of updates, an int or a scalar.
        longest: largest number of updates in the batch, an int or a scalar.
    """
    update = _update(rule, problem, options)

    def body(step: Tensor, state: InnerState) -> tuple[Tensor, InnerState]:
        moved, _ = update(state, step)
        going = step < num_steps
        state = tf.nest.map_structure(lambda new, old: tf.where(going, new, old), moved, state)
        return step + 1, state

    start = begin(rule, problem, theta_0)
    _, state = tf.while_loop(lambda step, _: step < longest, body, (0, start))
    is_moved = tf.convert_to_tensor(num_steps) > 0

    def cut(value: Tensor, as_before: Tensor) -> Tensor:
        value = tf.ensure_shape(value, as_before.shape)  # a loop in a batch of problems forgets it
        return tf.where(is_moved, tf.stop_gradient(value), as_before)

    return tf.nest.map_structure(cut, state, start)


def unroll_in_loop(
    rule: Rule, problem: Problem, theta_0: Tensor, options: InnerLoop, num_steps: Tensor
) -> Unrolled:
    """Runs the inner loop as `unroll` does, for a number of updates that is a scalar tensor.

    The graph has a loop with one update in it, so it is small. This is meant for trained models.
    """
    update = _update(rule, problem, options)
    start = begin(rule, problem, theta_0)
    shown = {"losses": tf.zeros([], theta_0.dtype), **rule.trace(start.rule_state)}
    arrays = {
        name: tf.TensorArray(each.dtype, num_steps, element_shape=each.shape)
        for name, each in shown.items()
    }

    def body(step: Tensor, state: InnerState, seen: dict[str, Any]) -> tuple:
        state, loss = update(state, step)
        values = {"losses": loss, **rule.trace(state.rule_state)}
        return step + 1, state, {name: seen[name].write(step, values[name]) for name in seen}

    _, state, seen = tf.while_loop(lambda step, *_: step < num_steps, body, (0, start, arrays))
    traces = {name: array.stack() for name, array in seen.items()}
    losses = traces.pop("losses")
    return Unrolled(state.theta, state.carry, Trajectory(losses, traces))


def _update(
    rule: Rule, problem: Problem, options: InnerLoop
) -> Callable[[InnerState, Any], tuple[InnerState, Tensor]]:
    """Returns a function (state, number of the update) -> (next state, loss before the update)."""
    move = _recomputed(rule, options.second_order) if options.recompute else rule
    scale = problem.gradient_scale()

    def update(state: InnerState, step: Any) -> tuple[InnerState, Tensor]:
        theta, carry, rule_state = state
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss, carry = problem.loss(theta, carry, step)
        gradient = tape.gradient(loss, theta)
        if gradient is None:
            raise ValueError("The loss of the problem does not depend on theta.")
        if not isinstance(scale, float) or scale != 1.0:
            gradient *= scale
        shown = loss
        if not options.second_order:
            gradient, shown = tf.stop_gradient(gradient), tf.stop_gradient(loss)
        theta, rule_state = move(gradient, shown, theta, rule_state)
        return InnerState(theta, carry, rule_state), loss

    return update


def _recomputed(
    rule: Rule, second_order: bool
) -> Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Any]]:
    """Returns the rule as a function for which the meta-gradient only keeps the arguments."""
    # tf.recompute_grad does not accept variables inside a loop, so these are tensors.
    weights, others = (
        [tf.convert_to_tensor(variable) for variable in variables]
        for variables in (rule.trainable_variables, rule.non_trainable_variables)
    )

    def update(gradient: Tensor, loss: Tensor, theta: Tensor, state: Any) -> tuple[Tensor, Any]:
        arguments = (gradient, loss, theta, state)
        num_tensors = len(tf.nest.flatten(arguments))

        # tf.recompute_grad takes and returns tensors, not structures of tensors.
        @tf.recompute_grad
        def flat(*tensors: Tensor) -> list[Tensor]:
            gradient, loss, theta, state = tf.nest.pack_sequence_as(
                arguments, tensors[:num_tensors]
            )
            # tf.recompute_grad differentiates this function, so the gradient is stopped here too.
            if not second_order:
                gradient, loss = tf.stop_gradient(gradient), tf.stop_gradient(loss)
            inputs = (gradient, loss, theta, state)
            return tf.nest.flatten(rule.stateless_call(tensors[num_tensors:], others, *inputs)[0])

        theta, *new = flat(*tf.nest.flatten(arguments), *weights)
        return theta, tf.nest.pack_sequence_as(state, new)

    return update


def _stacked(
    losses: list[Tensor], traces: list[dict[str, Tensor]], rule: Rule, theta_0: Tensor
) -> Trajectory:
    if losses:
        names = traces[0]
        return Trajectory(tf.stack(losses), {n: tf.stack([t[n] for t in traces]) for n in names})
    none = rule.trace(rule.initial_state(theta_0))
    return Trajectory(
        tf.zeros([0], theta_0.dtype),
        {name: each[tf.newaxis][:0] for name, each in none.items()},  # shapes may be unknown
    )
