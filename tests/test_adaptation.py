"""The inner loop: what it computes, and what the meta-gradient flows through."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop, adapt, cross_entropy


def meta_loss(learner, rule, theta_0, options, support, query):
    """The query loss after adaptation, as a function of every meta-parameter."""
    adapted, _ = adapt(learner, rule, theta_0, support, options)
    logits, _ = learner.apply(adapted.theta, adapted.statistics, query.inputs, training=True)
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
    """First order: gradients and losses are inputs that stay as they were recorded."""
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


def test_losses_and_gates_of_the_trajectory():
    learner, rule = toy.mlp_learner(), toy.lively_rule()
    support = toy.vector_support()
    theta = tf.constant(learner.initial_parameters())
    _, trajectory = adapt(learner, rule, theta, support, InnerLoop(num_steps=4))
    path = _record_path(learner, rule, theta, support, 4)
    np.testing.assert_allclose(trajectory.losses, [loss for _, loss in path], rtol=1e-12)
    assert trajectory.forget.shape == trajectory.input.shape == (4, learner.num_parameters)
    assert np.all((trajectory.forget > 0) & (trajectory.forget < 1))


def test_no_updates_leave_the_learner_as_it_was():
    learner = toy.mlp_learner()
    theta = tf.constant(learner.initial_parameters())
    adapted, trajectory = adapt(
        learner, toy.lively_rule(), theta, toy.vector_support(), InnerLoop(num_steps=0)
    )
    np.testing.assert_array_equal(adapted.theta, theta)
    assert trajectory.losses.shape == (0,)


@pytest.mark.parametrize(("batch_size", "images"), [(None, 6), (4, 4)])
def test_the_divisor_divides_what_the_rule_sees_by_the_batch(batch_size, images):
    learner = toy.mlp_learner()
    theta, support = tf.constant(learner.initial_parameters()), toy.vector_support(num_images=6)
    rule = toy.lively_rule()
    seen = {}
    for divisor in ("none", "batch_size"):
        options = InnerLoop(1, batch_size=batch_size, gradient_divisor=divisor)
        adapted, trajectory = adapt(learner, rule, theta, support, options)
        moved = trajectory.forget[0] * theta - adapted.theta
        seen[divisor] = (moved / trajectory.input[0]).numpy()
    np.testing.assert_allclose(seen["none"], images * seen["batch_size"], rtol=1e-9)


def test_mini_batches_are_taken_in_turn_and_wrap_around():
    learner, rule = toy.mlp_learner(), toy.lively_rule()
    theta, support = tf.constant(learner.initial_parameters()), toy.vector_support(num_images=6)
    _, trajectory = adapt(learner, rule, theta, support, InnerLoop(num_steps=2, batch_size=4))
    first = [0, 1, 2, 3]
    logits, _ = learner.apply(
        theta, tf.zeros([0], tf.float64), tf.gather(support.inputs, first), True
    )
    expected = cross_entropy(tf.gather(support.labels, first), logits)
    np.testing.assert_allclose(trajectory.losses[0], expected, rtol=1e-12)
    # The second batch is images 4, 5, 0, 1: the same loss as on a support set that begins there.
    turned = [4, 5, 0, 1, 2, 3]
    turned_support = type(support)(*(tf.gather(x, turned) for x in support))
    after_first, _ = adapt(learner, rule, theta, support, InnerLoop(num_steps=1, batch_size=4))
    _, second = adapt(
        learner, rule, after_first.theta, turned_support, InnerLoop(num_steps=1, batch_size=4)
    )
    np.testing.assert_allclose(trajectory.losses[1], second.losses[0], rtol=1e-12)


@pytest.mark.parametrize("batch_size", [6, 100])
def test_a_mini_batch_of_everything_is_the_full_batch(batch_size):
    learner, rule = toy.mlp_learner(), toy.lively_rule()
    theta, support = tf.constant(learner.initial_parameters()), toy.vector_support(num_images=6)
    whole, _ = adapt(learner, rule, theta, support, InnerLoop(num_steps=3))
    batched, _ = adapt(learner, rule, theta, support, InnerLoop(3, batch_size=batch_size))
    np.testing.assert_allclose(batched.theta, whole.theta, rtol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": -1}, "--num_steps must not be negative, got -1"),
        ({"batch_size": 0}, "--support_batch_size must be at least 1, got 0"),
        ({"gradient_divisor": "n"}, "must be one of none, batch_size, got 'n'"),
    ],
)
def test_refuses_impossible_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        InnerLoop(**arguments)


def _episode_gradients(learner, rule, second_order, recompute):
    """Meta-gradients of two episodes, mapped over as the method does, in a graph."""
    options = InnerLoop(3, second_order=second_order, recompute=recompute)
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


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("make_rule", [toy.lively_rule, toy.learned_sgd, toy.meta_sgd])
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
        adapted, _ = adapt(
            learner, rule, theta_0, toy.vector_support(), InnerLoop(3, recompute=True)
        )
        loss = tf.reduce_sum(adapted.theta)
    assert len(calls) == 3
    tape.gradient(loss, theta_0)
    assert len(calls) == 6
