"""Tests what every rule must do. A rule in the catalogue is tested automatically."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop, unroll, unroll_in_loop
from tf_metalstm.options import options_of
from tf_metalstm.parameters import blocks_of
from tf_metalstm.problems import SupportProblem
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.rules.catalogue import RULES

# There are two tensors, because a rule may treat them differently.
BLOCKS = blocks_of([("layer_1/kernel", (2, 2)), ("layer_2/bias", (2,))])
P = 6
LOSS = tf.constant(0.7, tf.float64)


def built(member, blocks=BLOCKS, **options):
    """Builds the rule in float64, with its default options except those that are named."""
    options = member.part.options(**options)
    config = member.from_options(options).get_config()
    rule = member.from_config({**config, "dtype": "float64"})
    rule.build(blocks)
    return rule


def other_options(member):
    """Returns for every option a value that is not the default."""
    values = {"hidden_units": 3, "preprocessing_scale": 8.0, "meta_sgd_rates": (0.2, 0.3)}
    values |= {"coordinate_units": 3, "tensor_units": 2, "global_units": 4}
    values |= {"first_rates": (0.01, 0.1), "celo_steps": 30, "celo_weights": None}
    values |= {"rate_updates": 2, "gate_updates": 2, "place_units": 2, "gate_units": 3}
    values |= {"forget_gate_bias": (3.0, 4.0), "input_gate_bias": (-4.0, -3.0)}
    found = {}
    for each in options_of(member.part.options).values():
        if each.kind is bool:
            found[each.name] = not each.default
        elif each.choices:
            found[each.name] = next(c for c in each.choices if c != each.default)
        else:
            found[each.name] = values.get(each.name, 0.5)
    return found


def numbers(seed, *shape):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def lively(rule):
    """Makes the weights large. Initial ones may be so small that tests would see no effect."""
    for index, weight in enumerate(rule.weights):
        noise = np.random.default_rng(index).normal(0.0, 0.3, weight.shape)
        rule_is_positive = not rule.treats_coordinates_alike or weight.shape == ()
        weight.assign(weight + (np.abs(noise) if rule_is_positive else noise))
    return rule


@pytest.fixture(params=RULES, ids=RULES.names())
def member(request):
    return request.param


@pytest.fixture
def rule(member):
    return built(member)


def test_an_update_keeps_shape_and_type_and_moves_theta(rule):
    theta = numbers(0, P)
    moved, _ = rule(numbers(1, P), LOSS, theta, rule.initial_state(theta))
    assert moved.shape == (P,)
    assert moved.dtype == tf.float64
    assert np.abs(moved - theta).max() > 1e-6


def test_gates_that_are_shown_are_those_that_move_theta(rule):
    theta, gradient = numbers(0, P), numbers(1, P)
    moved, state = rule(gradient, LOSS, theta, rule.initial_state(theta))
    trace = rule.trace(state)
    if FORGET_GATES in trace:  # a rule may have no gates
        expected = trace[FORGET_GATES] * theta - trace[INPUT_GATES] * gradient
        np.testing.assert_allclose(moved, expected, rtol=1e-12)


def test_state_and_trace_keep_their_structure(rule):
    theta = numbers(0, P)
    before = rule.initial_state(theta)
    _, after = rule(numbers(1, P), LOSS, theta, before)
    for one, other in ((before, after), (rule.trace(before), rule.trace(after))):
        tf.nest.assert_same_structure(one, other)
        for mine, its in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            assert (mine.shape, mine.dtype) == (its.shape, its.dtype)


def test_coordinates_that_are_treated_alike_may_change_places(rule):
    if not rule.treats_coordinates_alike:
        return
    theta, gradient, order = numbers(0, P), numbers(1, P), [3, 1, 5, 0, 4, 2]
    lively(rule)
    plain, _ = rule(gradient, LOSS, theta, rule.initial_state(theta))
    theta, gradient = tf.gather(theta, order), tf.gather(gradient, order)
    permuted, _ = rule(gradient, LOSS, theta, rule.initial_state(theta))
    np.testing.assert_allclose(permuted, tf.gather(plain, order), rtol=1e-12)


def test_it_says_whether_it_looks_at_the_loss(rule):
    ends = []
    for rise in (0.0, 1.0):  # a rule may need some losses before they have an effect
        theta = numbers(0, P)
        state = rule.initial_state(theta)
        for t in range(4):
            theta, state = rule(numbers(t, P), LOSS * (1.0 + rise * t), theta, state)
        ends.append(theta.numpy())
    assert np.array_equal(*ends) != rule.uses_loss


def test_survives_serialization_and_takes_its_weights_along(member):
    rule = built(member, **other_options(member))
    assert rule.get_config() != built(member).get_config() or not other_options(member)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
    assert copy.built  # for the same blocks
    assert copy.get_config() == rule.get_config()
    copy.set_weights(rule.get_weights())
    theta, gradient = numbers(0, P), numbers(1, P)
    one, other = (r(gradient, LOSS, theta, r.initial_state(theta))[0] for r in (rule, copy))
    np.testing.assert_array_equal(one, other)


def test_the_same_eager_and_in_a_graph(rule):
    def updates(theta):
        state = rule.initial_state(theta)
        for t in range(3):
            theta, state = rule(numbers(t, P), LOSS, theta, state)
        return theta

    np.testing.assert_allclose(updates(numbers(9, P)), tf.function(updates)(numbers(9, P)))


def test_the_same_unrolled_and_in_a_loop(member):
    learner = toy.mlp_learner()
    rule = lively(built(member, learner.parameter_blocks))
    problem = SupportProblem(learner, toy.vector_support())
    theta_0, loop = tf.constant(learner.initial_parameters()), InnerLoop(3)
    one = unroll(rule, problem, theta_0, loop)
    other = tf.function(lambda: unroll_in_loop(rule, problem, theta_0, loop, tf.constant(3)))()
    for mine, its in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("second_order", [False, True])
def test_every_weight_has_a_meta_gradient_that_finite_differences_confirm(member, second_order):
    """Each random direction moves every entry of every weight."""
    learner = toy.mlp_learner()
    few = {"hidden_units": 3, "learn_inner_rate": True}
    options = {n: v for n, v in few.items() if n in options_of(member.part.options)}
    rule = lively(built(member, learner.parameter_blocks, **options))
    assert rule.trainable_weights
    support, query = toy.vector_support(), toy.vector_support(seed=8)
    theta_0 = tf.constant(learner.initial_parameters())
    loop = InnerLoop(num_steps=3 if second_order else 1, second_order=second_order)

    def query_loss():
        adapted = unroll(rule, SupportProblem(learner, support), theta_0, loop)
        logits, _ = learner.apply(adapted.theta, adapted.carry, query.inputs, training=True)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(query.labels, logits))

    variables = [w.value for w in rule.trainable_weights]
    with tf.GradientTape() as tape:
        value = query_loss()
    gradients = tape.gradient(value, variables, unconnected_gradients="zero")
    for variable, gradient in zip(variables, gradients, strict=True):
        # The effect of the state is only seen after several updates.
        assert not second_order or np.abs(gradient).max() > 0.0, variable.name
    starts = [variable.numpy() for variable in variables]
    for seed in range(3):
        generator = np.random.default_rng(seed)
        directions = [generator.normal(size=start.shape) for start in starts]
        expected, size = [], 1e-5
        for sign in (1, -1):
            for variable, start, direction in zip(variables, starts, directions, strict=True):
                variable.assign(start + sign * size * direction)
            expected.append(float(query_loss()))
        along = sum(np.sum(g * d) for g, d in zip(gradients, directions, strict=True))
        np.testing.assert_allclose(along, (expected[0] - expected[1]) / (2 * size), rtol=1e-5)
