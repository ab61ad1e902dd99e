"""The inner loop: T updates of a learner on the support set of one episode.

Algorithm 1 of the paper, lines 6 to 12. For t = 1 ... T:

    L_t    = loss(learner(support; theta_{t-1}))
    grad_t = d L_t / d theta_{t-1}
    theta_t, state_t = rule(stop(grad_t), stop(L_t), theta_{t-1}, state_{t-1})

stop() is the gradient independence assumption of section 3.3.1: the meta-gradient
flows through theta and the state of the rule, not through the learner's own
gradient. With `second_order` there is no stop(), and it flows through everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.objectives import cross_entropy
from tf_metalstm.rules.base import Rule

GRADIENT_DIVISORS = ("none", "batch_size")


@dataclass(frozen=True)
class InnerLoop:
    """How the inner loop runs.

    num_steps: T, updates of an episode.
    batch_size: support images of an update, taken in turn; None takes all of them.
    second_order: keep the path of the meta-gradient through the learner's gradient.
    gradient_divisor: "none", or "batch_size" to divide the gradient of the mean loss once
        more by the number of images in the update, as the authors' code does.
    recompute: let the meta-gradient compute the inside of the rule again instead of keeping it.
        Kept are then only the gradient, the loss, theta and the rule's state of each update, for
        the meta-LSTM 2 H + 4 numbers a coordinate. The same meta-gradient, in less memory and more
        time.
    """

    num_steps: int = 5
    batch_size: int | None = None
    second_order: bool = False
    gradient_divisor: str = "none"
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.num_steps < 0:
            raise ValueError(f"--num_steps must not be negative, got {self.num_steps}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"--support_batch_size must be at least 1, got {self.batch_size}.")
        if self.gradient_divisor not in GRADIENT_DIVISORS:
            raise ValueError(
                f"--gradient_divisor must be one of {', '.join(GRADIENT_DIVISORS)}, "
                f"got {self.gradient_divisor!r}."
            )


class Trajectory(NamedTuple):
    """What happened in the inner loop, for those who want to look.

    losses: L_1 ... L_T, before each update, [T].
    forget: forget gates of each update, [T, P].
    input: input gates of each update, [T, P].
    """

    losses: Tensor
    forget: Tensor
    input: Tensor


class Adapted(NamedTuple):
    """A learner after the inner loop.

    theta: theta_T, [P].
    statistics: collected by the support passes at theta_0 ... theta_{T-1}, [S].
    """

    theta: Tensor
    statistics: Tensor


LossFunction = Callable[[Tensor, Tensor], Tensor]


def adapt(
    learner: FunctionalLearner,
    rule: Rule,
    theta_0: Tensor,
    support: Support,
    options: InnerLoop,
    loss_function: LossFunction = cross_entropy,
) -> tuple[Adapted, Trajectory]:
    """Runs the inner loop on one episode.

    Every episode starts afresh: from theta_0, from the learner's initial statistics
    and from the rule's initial state. In a graph, what the caller leaves unused of the
    trajectory is not computed.

    Args:
        learner: the network, a function of theta.
        rule: how theta moves.
        theta_0: where it starts, c_0 of the paper, [P].
        support: inputs [B, ...] and labels, of classes [B] or real [B, D].
        options: number of updates and the like.
        loss_function: (labels, outputs) -> scalar.

    Returns:
        The adapted learner and the trajectory that led there.
    """
    update = _update(learner, rule, support, options, loss_function)
    state = _start(learner, rule, theta_0)
    losses, gates = [], []
    for step in range(options.num_steps):
        state, loss = update(state, step)
        losses.append(loss)
        gates.append(rule.gates(state.rule_state))
    return Adapted(state.theta, state.statistics), _trajectory(losses, gates, theta_0)


def adapt_in_loop(
    learner: FunctionalLearner,
    rule: Rule,
    theta_0: Tensor,
    support: Support,
    options: InnerLoop,
    num_steps: Tensor,
    loss_function: LossFunction = cross_entropy,
) -> tuple[Adapted, Trajectory]:
    """As `adapt`, with a number of updates that only the running graph knows, a scalar.

    A loop of the graph, with one update in it: small, and meant for models that are trained.
    """
    update = _update(learner, rule, support, options, loss_function)

    def body(step: Tensor, state: _InnerState, seen: Trajectory) -> tuple:
        state, loss = update(state, step)
        gates = rule.gates(state.rule_state)
        written = (
            array.write(step, value) for array, value in zip(seen, (loss, *gates), strict=True)
        )
        return step + 1, state, Trajectory(*written)

    shapes = Trajectory(losses=[], forget=theta_0.shape, input=theta_0.shape)
    nothing_seen = Trajectory(
        *(tf.TensorArray(theta_0.dtype, num_steps, element_shape=shape) for shape in shapes)
    )
    _, state, seen = tf.while_loop(
        lambda step, *_: step < num_steps, body, (0, _start(learner, rule, theta_0), nothing_seen)
    )
    return Adapted(state.theta, state.statistics), Trajectory(*(array.stack() for array in seen))


class _InnerState(NamedTuple):
    """What goes from update to update.

    theta: [P].
    statistics: [S].
    rule_state: nested tensors.
    """

    theta: Tensor
    statistics: Tensor
    rule_state: Any


def _start(learner: FunctionalLearner, rule: Rule, theta_0: Tensor) -> _InnerState:
    statistics = tf.constant(learner.initial_statistics())
    return _InnerState(theta_0, statistics, rule.initial_state(theta_0))


def _update(
    learner: FunctionalLearner,
    rule: Rule,
    support: Support,
    options: InnerLoop,
    loss_function: LossFunction,
) -> Callable[[_InnerState, Any], tuple[_InnerState, Tensor]]:
    """Returns one update: (state, its number) -> the state after it, the loss before it."""
    move = _recomputed(rule, options.second_order) if options.recompute else rule

    def update(state: _InnerState, step: Any) -> tuple[_InnerState, Tensor]:
        theta, statistics, rule_state = state
        batch = _mini_batch(support, options.batch_size, step)
        with tf.GradientTape() as tape:
            tape.watch(theta)
            outputs, statistics = learner.apply(theta, statistics, batch.inputs, training=True)
            loss = loss_function(batch.labels, outputs)
        gradient = tape.gradient(loss, theta)
        if options.gradient_divisor == "batch_size":
            gradient /= tf.cast(tf.shape(batch.inputs)[0], gradient.dtype)
        if not options.second_order:
            gradient, loss = tf.stop_gradient(gradient), tf.stop_gradient(loss)
        theta, rule_state = move(gradient, loss, theta, rule_state)
        return _InnerState(theta, statistics, rule_state), loss

    return update


def _recomputed(
    rule: Rule, second_order: bool
) -> Callable[[Tensor, Tensor, Tensor, Any], tuple[Tensor, Any]]:
    """Returns the rule as a function of which the meta-gradient keeps the arguments alone."""
    # As tensors and not as variables, which tf.recompute_grad does not take within a loop.
    weights, others = (
        [tf.convert_to_tensor(variable) for variable in variables]
        for variables in (rule.trainable_variables, rule.non_trainable_variables)
    )

    def update(gradient: Tensor, loss: Tensor, theta: Tensor, state: Any) -> tuple[Tensor, Any]:
        arguments = (gradient, loss, theta, state)
        num_tensors = len(tf.nest.flatten(arguments))

        # tf.recompute_grad takes and returns tensors, no structures of them.
        @tf.recompute_grad
        def flat(*tensors: Tensor) -> list[Tensor]:
            gradient, loss, theta, state = tf.nest.pack_sequence_as(
                arguments, tensors[:num_tensors]
            )
            if not second_order:  # said again where it is differentiated: nothing asks for it
                gradient, loss = tf.stop_gradient(gradient), tf.stop_gradient(loss)
            given = (gradient, loss, theta, state)
            return tf.nest.flatten(rule.stateless_call(tensors[num_tensors:], others, *given)[0])

        theta, *new = flat(*tf.nest.flatten(arguments), *weights)
        return theta, tf.nest.pack_sequence_as(state, new)

    return update


def _mini_batch(support: Support, batch_size: int | None, step: int) -> Support:
    """Returns the images of an update: stretches of the support set, taken in turn, cyclic."""
    if batch_size is None:
        return support
    num_images = tf.shape(support.labels)[0]
    rows = (step * batch_size + tf.range(tf.minimum(batch_size, num_images))) % num_images
    return Support(tf.gather(support.inputs, rows), tf.gather(support.labels, rows))


def _trajectory(losses: list, gates: list, theta: Tensor) -> Trajectory:
    if not losses:
        none = tf.zeros([0, tf.size(theta)], theta.dtype)
        return Trajectory(tf.zeros([0], theta.dtype), none, none)
    return Trajectory(
        losses=tf.stack(losses),
        forget=tf.stack([each.forget for each in gates]),
        input=tf.stack([each.input for each in gates]),
    )
