"""Tests the inner loop: its results, and the paths of the meta-gradient."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop, unroll, unroll_in_loop
from tf_metalstm.episode import Support
from tf_metalstm.objectives import cross_entropy
from tf_metalstm.options import OptionError
from tf_metalstm.parameters import blocks_of
from tf_metalstm.problems import SupportProblem
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES, Rule


def adapt(learner, rule, theta_0, support, options, **of_problem):
    """Runs the inner loop on the support set of an episode."""
    return unroll(rule, SupportProblem(learner, support, **of_problem), theta_0, options)


def meta_loss(learner, rule, theta_0, options, support, query):
    """Returns the query loss after adaptation as a function of all meta-parameters."""
    adapted = adapt(learner, rule, theta_0, support, options)
    logits, _ = learner.apply(adapted.theta, adapted.carry, query.inputs, training=True)
    return cross_entropy(query.labels, logits)


def finite_difference(function, variable, index, step=1e-5):
    values = np.array(variable.numpy())

    def at(offset):
        moved = values.copy()
        moved[index] += offset
        variable.assign(moved)
        return float(function())

    try:
        return (at(step) - at(-step)) / (2 * step)
    finally:
        variable.assign(values)


def meta_parameters(rule, theta_0):
    return [w.value for w in rule.trainable_variables] + [theta_0]


@pytest.mark.parametrize("gate_feedback", ["value", "logit"])
def test_second_order_meta_gradient_agrees_with_finite_differences(gate_feedback):
    learner, rule = toy.mlp_learner(), toy.lively_rule(gate_feedback=gate_feedback)
    support, query = toy.vector_support(), toy.vector_support(seed=8)
    theta_0 = tf.Variable(learner.initial_parameters())
    options = InnerLoop(num_steps=3, second_order=True)

    def loss():
        return meta_loss(learner, rule, tf.convert_to_tensor(theta_0), options, support, query)

    variables = meta_parameters(rule, theta_0)
    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        for index in list(np.ndindex(*variable.shape))[::7]:
            expected = finite_difference(loss, variable, index)
            np.testing.assert_allclose(gradient.numpy()[index], expected, rtol=1e-5, atol=1e-9)


def test_first_order_meta_gradient_agrees_with_finite_differences_of_a_frozen_path():
    """In the first order, gradients and losses are fixed inputs."""
    learner, rule = toy.mlp_learner(), toy.lively_rule()
    support, query = toy.vector_support(), toy.vector_support(seed=8)
    theta_0 = tf.Variable(learner.initial_parameters())
    options = InnerLoop(num_steps=3)
    recorded = _record_path(learner, rule, tf.convert_to_tensor(theta_0), support, 3)

    def frozen_loss():
        theta = tf.convert_to_tensor(theta_0)
        state = rule.initial_state(theta)
        for gradient, loss in recorded:
            theta, state = rule(gradient, loss, theta, state)
        logits, _ = learner.apply(theta, tf.zeros([0], tf.float64), query.inputs, True)
        return cross_entropy(query.labels, logits)

    variables = meta_parameters(rule, theta_0)
    with tf.GradientTape() as tape:
        value = meta_loss(learner, rule, tf.convert_to_tensor(theta_0), options, support, query)
    for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
        for index in list(np.ndindex(*variable.shape))[::7]:
            expected = finite_difference(frozen_loss, variable, index)
            np.testing.assert_allclose(gradient.numpy()[index], expected, rtol=1e-5, atol=1e-9)


def _record_path(learner, rule, theta, support, num_steps):
    state, path = rule.initial_state(theta), []
    for _ in range(num_steps):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            logits, _ = learner.apply(theta, tf.zeros([0], tf.float64), support.inputs, True)
            loss = cross_entropy(support.labels, logits)
        gradient = tape.gradient(loss, theta)
        path.append((gradient, loss))
        theta, state = rule(gradient, loss, theta, state)
    return path


def test_the_two_orders_differ_in_the_gradient_and_agree_in_the_value():
    learner, rule = toy.mlp_learner(), toy.lively_rule()
    support, query = toy.vector_support(), toy.vector_support(seed=8)
    theta_0 = tf.Variable(learner.initial_parameters())
    results = []
    for second_order in (False, True):
        options = InnerLoop(num_steps=3, second_order=second_order)
        with tf.GradientTape() as tape:
            value = meta_loss(learner, rule, tf.convert_to_tensor(theta_0), options, support, query)
        results.append((float(value), tape.gradient(value, theta_0)))
    assert results[0][0] == results[1][0]
    assert np.abs(results[0][1] - results[1][1]).max() > 1e-4


def test_losses_and_traces_of_the_trajectory():
    learner, rule = toy.mlp_learner(), toy.lively_rule()
    support = toy.vector_support()
    theta = tf.constant(learner.initial_parameters())
    trajectory = adapt(learner, rule, theta, support, InnerLoop(num_steps=4)).trajectory
    path = _record_path(learner, rule, theta, support, 4)
    np.testing.assert_allclose(trajectory.losses, [loss for _, loss in path], rtol=1e-12)
    forget, entry = (trajectory.traces[name] for name in (FORGET_GATES, INPUT_GATES))
    assert forget.shape == entry.shape == (4, learner.num_parameters)
    assert np.all((forget > 0) & (forget < 1))
    state = rule.initial_state(theta)
    for t, (gradient, loss) in enumerate(path):  # a trace belongs to its own update
        theta, state = rule(gradient, loss, theta, state)
        np.testing.assert_allclose(forget[t], rule.trace(state)[FORGET_GATES], rtol=1e-12)
        np.testing.assert_allclose(entry[t], rule.trace(state)[INPUT_GATES], rtol=1e-12)


def test_no_updates_leave_the_learner_as_it_was():
    learner = toy.mlp_learner()
    theta = tf.constant(learner.initial_parameters())
    adapted = adapt(learner, toy.lively_rule(), theta, toy.vector_support(), InnerLoop(num_steps=0))
    np.testing.assert_array_equal(adapted.theta, theta)
    assert adapted.trajectory.losses.shape == (0,)
    shapes = {name: each.shape for name, each in adapted.trajectory.traces.items()}
    assert shapes == dict.fromkeys((FORGET_GATES, INPUT_GATES), (0, learner.num_parameters))


@pytest.mark.parametrize(("batch_size", "images"), [(None, 6), (4, 4)])
def test_the_divisor_divides_what_the_rule_sees_by_the_batch(batch_size, images):
    learner = toy.mlp_learner()
    theta, support = tf.constant(learner.initial_parameters()), toy.vector_support(num_images=6)
    rule = toy.lively_rule()
    seen = {}
    for divisor in ("none", "batch_size"):
        given = {"batch_size": batch_size, "gradient_divisor": divisor}
        adapted = adapt(learner, rule, theta, support, InnerLoop(1), **given)
        traces = adapted.trajectory.traces
        moved = traces[FORGET_GATES][0] * theta - adapted.theta
        seen[divisor] = (moved / traces[INPUT_GATES][0]).numpy()
    np.testing.assert_allclose(seen["none"], images * seen["batch_size"], rtol=1e-9)


def test_mini_batches_are_taken_in_turn_and_wrap_around():
    learner, rule = toy.mlp_learner(), toy.lively_rule()
    theta, support = tf.constant(learner.initial_parameters()), toy.vector_support(num_images=6)
    losses = adapt(learner, rule, theta, support, InnerLoop(2), batch_size=4).trajectory.losses
    first = [0, 1, 2, 3]
    logits, _ = learner.apply(
        theta, tf.zeros([0], tf.float64), tf.gather(support.inputs, first), True
    )
    expected = cross_entropy(tf.gather(support.labels, first), logits)
    np.testing.assert_allclose(losses[0], expected, rtol=1e-12)
    # The second batch is images 4, 5, 0, 1, so the loss is that of a support set in this order.
    turned = [4, 5, 0, 1, 2, 3]
    turned_support = type(support)(*(tf.gather(x, turned) for x in support))
    after_first = adapt(learner, rule, theta, support, InnerLoop(1), batch_size=4).theta
    second = adapt(learner, rule, after_first, turned_support, InnerLoop(1), batch_size=4)
    np.testing.assert_allclose(losses[1], second.trajectory.losses[0], rtol=1e-12)


@pytest.mark.parametrize("batch_size", [6, 100])
def test_a_mini_batch_of_everything_is_the_full_batch(batch_size):
    learner, rule = toy.mlp_learner(), toy.lively_rule()
    theta, support = tf.constant(learner.initial_parameters()), toy.vector_support(num_images=6)
    whole = adapt(learner, rule, theta, support, InnerLoop(num_steps=3))
    batched = adapt(learner, rule, theta, support, InnerLoop(3), batch_size=batch_size)
    np.testing.assert_allclose(batched.theta, whole.theta, rtol=1e-10)


def support_problem(**options):
    return SupportProblem(toy.mlp_learner(), toy.vector_support(), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InnerLoop(num_steps=-1), "^num_steps must be at least 0, got -1"),
        (
            lambda: support_problem(batch_size=0),
            "^support_batch_size must be at least 1, got 0",
        ),
        (
            lambda: support_problem(gradient_divisor="n"),
            "^gradient_divisor must be one of none, batch_size, got 'n'",
        ),
    ],
)
def test_refuses_impossible_options(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def _episode_gradients(learner, rule, second_order, recompute):
    """Returns the meta-gradients of two episodes, mapped in a graph as in the method."""
    options = InnerLoop(2, second_order=second_order, recompute=recompute)
    theta_0 = tf.Variable(learner.initial_parameters())
    pairs = [(toy.vector_support(seed=s), toy.vector_support(seed=s + 10)) for s in (7, 8)]
    episodes = tf.nest.map_structure(lambda *each: tf.stack(each), *pairs)

    @tf.function
    def gradients():
        def loss(episode):
            start = tf.convert_to_tensor(theta_0)
            return meta_loss(learner, rule, start, options, *episode)

        with tf.GradientTape() as tape:
            losses = tf.map_fn(loss, episodes, fn_output_signature=tf.float64)
            total = tf.reduce_sum(losses)
        return tape.gradient(total, meta_parameters(rule, theta_0))

    return gradients()


SIMPLE_RULES = [
    pytest.param(make_rule, marks=pytest.mark.slow) for make_rule in (toy.learned_sgd, toy.meta_sgd)
]


@pytest.mark.parametrize("second_order", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("make_rule", [toy.lively_rule, *SIMPLE_RULES])
def test_recomputing_changes_no_meta_gradient(make_rule, second_order):
    learner, rule = toy.mlp_learner(), make_rule()
    kept, recomputed = (
        _episode_gradients(learner, rule, second_order, recompute) for recompute in (False, True)
    )
    for one, other in zip(kept, recomputed, strict=True):
        assert np.any(one)
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


def test_recomputing_runs_the_rule_again_for_the_meta_gradient():
    learner, rule = toy.mlp_learner(), toy.lively_rule()
    calls = []
    call = rule.call
    rule.call = lambda *arguments: (calls.append(1), call(*arguments))[1]
    theta_0 = tf.constant(learner.initial_parameters())
    with tf.GradientTape() as tape:
        tape.watch(theta_0)
        adapted = adapt(learner, rule, theta_0, toy.vector_support(), InnerLoop(3, recompute=True))
        loss = tf.reduce_sum(adapted.theta)
    assert len(calls) == 3
    tape.gradient(loss, theta_0)
    assert len(calls) == 6


class Valley:
    """A user's problem, |theta - target|^2, that halves its gradient and counts the steps."""

    def __init__(self, target):
        self.target = target

    def initial_carry(self):
        return {"passes": tf.zeros([], tf.int32), "last": tf.zeros([], tf.float64)}

    def loss(self, theta, carry, step):
        loss = tf.reduce_sum(tf.square(theta - self.target))
        # A schedule within a problem may use the number of the step.
        return loss, {"passes": carry["passes"] + 1 + tf.cast(step, tf.int32), "last": loss}

    def gradient_scale(self):
        return 0.5


class Averaging(Rule):
    """A rule: theta_t = theta_{t-1} - weight * mean of all gradients so far. It has no trace."""

    def build(self, blocks):
        self.num_blocks = len(blocks)
        self.weight = self.add_weight(shape=(), initializer="ones", name="weight")
        self.built = True

    def initial_state(self, theta):
        return {"sum": tf.zeros_like(theta), "count": tf.zeros([], theta.dtype)}

    def call(self, gradient, loss, theta, state):
        state = {"sum": state["sum"] + gradient, "count": state["count"] + 1.0}
        return theta - self.weight * 0.4 * state["sum"] / state["count"], state


def averaging():
    rule = Averaging(dtype="float64")
    rule.build(blocks_of([("here", (2,)), ("there", (1,))]))
    return rule


TARGET = tf.constant([1.0, -2.0, 0.5], tf.float64)


def test_a_problem_of_ones_own_by_hand():
    """Compares a problem without support set and learner with NumPy; its gradient is halved."""
    theta_0 = np.array([4.0, 0.0, 1.0])
    found = unroll(averaging(), Valley(TARGET), tf.constant(theta_0), InnerLoop(3))
    theta, gradients, losses = theta_0, [], []
    for _ in range(3):
        losses.append(np.sum((theta - TARGET.numpy()) ** 2))
        gradients.append(theta - TARGET.numpy())
        theta = theta - 0.4 * np.mean(gradients, axis=0)
    np.testing.assert_allclose(found.theta, theta, rtol=1e-12)
    np.testing.assert_allclose(found.trajectory.losses, losses, rtol=1e-12)
    assert found.trajectory.traces == {}
    assert int(found.carry["passes"]) == 3 + 0 + 1 + 2
    np.testing.assert_allclose(found.carry["last"], losses[-1], rtol=1e-12)


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("num_steps", [0, 1, 4])
@pytest.mark.parametrize("make_rule", [averaging, toy.lively_rule, *SIMPLE_RULES])
def test_a_loop_in_the_graph_makes_the_same_updates(make_rule, num_steps, second_order):
    """`unroll` copies the update for each step, `unroll_in_loop` has one. A trace is optional.

    With the same number of steps all results are equal, and the meta-gradients too.
    """
    rule, theta_0 = make_rule(), tf.constant([4.0, 0.0, 1.0], tf.float64)
    options = InnerLoop(num_steps, second_order=second_order)

    def written_out(steps):
        del steps
        return unroll(rule, Valley(TARGET), theta_0, options)

    def in_loop(steps):
        return unroll_in_loop(rule, Valley(TARGET), theta_0, options, steps)

    results = []
    for function in (written_out, in_loop, tf.function(in_loop)):
        with tf.GradientTape() as tape:
            tape.watch(theta_0)
            found = function(tf.constant(num_steps))
            total = tf.reduce_sum(found.theta**2) + tf.reduce_sum(found.trajectory.losses)
        variables = [theta_0, *(w.value for w in rule.trainable_weights)]
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        results.append((found, gradients))
    (one, _), *_ = results
    assert one.trajectory.losses.shape == (num_steps,)
    assert one.trajectory.traces.keys() == rule.trace(rule.initial_state(theta_0)).keys()
    assert (make_rule is averaging) == (one.trajectory.traces == {})
    for other in results[1:]:
        tf.nest.assert_same_structure(results[0], other)
        for a, b in zip(tf.nest.flatten(results[0]), tf.nest.flatten(other), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_the_support_set_in_a_loop_of_the_graph():
    """Also tests mini-batches, which depend on the number of the step, and batch norm."""
    learner, rule = toy.conv_learner(), toy.lively_rule(dtype="float32")
    generator = np.random.default_rng(1)
    images = tf.constant(generator.normal(size=(7, 16, 16, 1)), tf.float32)
    problem = SupportProblem(
        learner, Support(images, tf.constant([0, 1, 2, 3, 4, 0, 1])), batch_size=3
    )
    theta_0 = tf.constant(learner.initial_parameters())
    one = unroll(rule, problem, theta_0, InnerLoop(4))
    other = unroll_in_loop(rule, problem, theta_0, InnerLoop(1), tf.constant(4))
    assert np.abs(one.carry - problem.initial_carry()).max() > 0.01
    for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_loss_that_does_not_depend_on_theta_is_refused():
    class Constant(Valley):
        def loss(self, theta, carry, step):
            return tf.reduce_sum(self.target), carry

    with pytest.raises(ValueError, match="does not depend on theta"):
        unroll(averaging(), Constant(TARGET), tf.zeros([3], tf.float64), InnerLoop(1))


def test_a_rule_without_trace_is_recomputed_to_the_same_meta_gradient():
    rule, theta_0 = averaging(), tf.constant([4.0, 0.0, 1.0], tf.float64)
    gradients = []
    for recompute in (False, True):
        options = InnerLoop(3, second_order=True, recompute=recompute)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(unroll(rule, Valley(TARGET), theta_0, options).theta)
        gradients.append(tape.gradient(total, rule.weight.value))
    assert abs(float(gradients[0])) > 0.1
    np.testing.assert_allclose(*gradients, rtol=1e-12)
