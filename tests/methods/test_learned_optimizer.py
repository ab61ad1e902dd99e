"""Tests the learned optimizer: losses by hand, the meta-gradient of a learning rate, traces."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop, InnerState, unroll
from tf_metalstm.construction import build_method, build_tasks
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.quadratics import Quadratic, QuadraticTasks
from tf_metalstm.data.training_problems import FIRST_STEP, SCALES, TrainingProblems
from tf_metalstm.graphs import graph_function
from tf_metalstm.methods.base import LOSSES
from tf_metalstm.methods.learned_optimizer import LearnedOptimizerMethod, LearnedOptimizerOptions
from tf_metalstm.objectives import OPTIMIZATION
from tf_metalstm.options import OptionError
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.rules.hierarchical_rnn import HierarchicalRNN
from tf_metalstm.rules.meta_sgd import MetaSGD
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.settings import make_settings
from tf_metalstm.training.outer_loop import compile_method

D = 3


def quadratic(task):
    return Quadratic(task["matrix"], task["target"])


def optimizer(rule, num_steps=4, num_evaluation_steps=None, **inner_loop):
    loop = InnerLoop(num_steps, **inner_loop)
    return LearnedOptimizerMethod(rule, QuadraticTasks(D), loop, num_evaluation_steps)


def problems(num_problems=2, seed=0):
    """Returns the tensors of E random problems in float64."""
    generator = np.random.default_rng(seed)
    shapes = {"matrix": (D, D), "target": (D,), "theta_0": (D,)}
    return {
        name: tf.constant(generator.normal(size=(num_problems, *shape)))
        for name, shape in shapes.items()
    }


def losses_by_hand(tasks, rate, num_steps):
    """Returns losses [E, T + 1] of gradient descent: theta - rate * 2 W^T (W theta - y)."""
    matrices, targets, starts = (tasks[n].numpy() for n in ("matrix", "target", "theta_0"))
    found = []
    for matrix, target, theta in zip(matrices, targets, starts, strict=True):
        path = []
        for _ in range(num_steps + 1):
            rest = matrix @ theta - target
            path.append(rest @ rest)
            theta = theta - rate * 2.0 * matrix.T @ rest
        found.append(path)
    return np.array(found)


@pytest.mark.parametrize("num_steps", [0, 1, 5])
@pytest.mark.parametrize("training", [False, True])
def test_losses_of_gradient_descent_by_hand(num_steps, training):
    tasks = problems(3)
    found = optimizer(SGD(0.03, dtype="float64"), num_steps)(tasks, training=training)
    assert found.shape == (3, num_steps + 1)
    np.testing.assert_allclose(found, losses_by_hand(tasks, 0.03, num_steps), rtol=1e-12)


def test_in_closed_form():
    """With W = 1, y = 0 the loss is theta^2, and each update multiplies theta by 1 - 2 a."""
    tasks = {
        "matrix": tf.eye(D, batch_shape=[1], dtype=tf.float64),
        "target": tf.zeros([1, D], tf.float64),
        "theta_0": tf.constant([[2.0, 0.0, 0.0]], tf.float64),
    }
    found = optimizer(SGD(0.1, dtype="float64"), 3)(tasks)
    np.testing.assert_allclose(found, [[4.0 * 0.8 ** (2 * t) for t in range(4)]], rtol=1e-12)


def test_more_updates_outside_of_training():
    method = optimizer(SGD(0.03, dtype="float64"), 2, num_evaluation_steps=6)
    tasks = problems()
    assert method.num_updates == 6
    assert method(tasks, training=True).shape == (2, 3)
    expected = losses_by_hand(tasks, 0.03, 6)
    np.testing.assert_allclose(method(tasks, training=False), expected, rtol=1e-12)


@pytest.mark.parametrize("by_coordinate", [False, True])
def test_the_meta_gradient_of_the_rates_agrees_with_finite_differences(by_coordinate):
    """The mean loss over the updates is differentiated with the second order."""
    rule = MetaSGD(0.02, 0.1, dtype="float64") if by_coordinate else toy.learned_sgd()
    method = optimizer(rule, second_order=True)
    tasks = problems()
    [weight] = method.trainable_weights

    @tf.function
    def mean_loss():
        return OPTIMIZATION.loss(tf.zeros([2]), method(tasks, training=True))

    with tf.GradientTape() as tape:
        value = mean_loss()
    gradient = np.array(tape.gradient(value, weight.value))
    for index in np.ndindex(*weight.shape):
        start, ends = weight.numpy(), []
        for sign in (1.0, -1.0):
            moved = np.array(start)
            moved[index] += sign * 1e-6
            weight.assign(moved)
            ends.append(float(mean_loss()))
        weight.assign(start)
        expected = (ends[0] - ends[1]) / 2e-6
        assert abs(expected) > 1e-3
        np.testing.assert_allclose(gradient[index], expected, rtol=1e-5)


def test_the_first_order_meta_gradient_leaves_out_the_path_through_the_gradient():
    """After one update d L(theta_1) / d rate = -grad(theta_1) . grad(theta_0) in both orders.

    After two updates the orders differ. The path along theta stays in the first order: it tells
    the rule what its updates lead to.
    """
    tasks = problems(1)
    matrix, target, theta = (tasks[n].numpy()[0] for n in ("matrix", "target", "theta_0"))

    def slope(theta):
        return 2.0 * matrix.T @ (matrix @ theta - target)

    found = {}
    for num_steps in (1, 2):
        for second_order in (False, True):
            method = optimizer(toy.learned_sgd(), num_steps, second_order=second_order)
            [weight] = method.trainable_weights
            with tf.GradientTape() as tape:
                loss = OPTIMIZATION.loss(tf.zeros([1]), method(tasks, training=True))
            found[num_steps, second_order] = float(tape.gradient(loss, weight.value))
    rate = float(weight.numpy())
    first = slope(theta)
    second = slope(theta - rate * first)
    third = slope(theta - rate * first - rate * second)
    # The mean is over T + 1 losses. The first does not depend on the rate.
    one_update = -second @ first / 2
    two_updates = -(second @ first + third @ (first + second)) / 3
    np.testing.assert_allclose(found[1, False], one_update, rtol=1e-10)
    np.testing.assert_allclose(found[1, True], one_update, rtol=1e-10)
    np.testing.assert_allclose(found[2, False], two_updates, rtol=1e-10)
    assert abs(found[2, True] / two_updates - 1.0) > 1e-3


@pytest.mark.parametrize("second_order", [pytest.param(False, marks=pytest.mark.slow), True])
def test_recomputing_changes_no_meta_gradient(second_order):
    """Checks it in a graph, where the problems of a step are in a loop, as in `fit`."""
    tasks, rule, gradients = problems(), toy.lively_rule(), []
    for recompute in (False, True):
        method = optimizer(rule, 2, recompute=recompute, second_order=second_order)

        @tf.function
        def gradient(method=method):
            with tf.GradientTape() as tape:
                loss = OPTIMIZATION.loss(tf.zeros([2]), method(tasks, training=True))
            return tape.gradient(loss, [w.value for w in method.trainable_weights])

        gradients.append(gradient())
    assert len(gradients[0]) == 7
    for one, other in zip(*gradients, strict=True):
        assert np.any(one)
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)


def test_problems_do_not_touch_each_other():
    answer = graph_function(optimizer(toy.lively_rule(), 2))
    tasks = problems(3)
    together = answer(tasks)
    for i in range(3):
        alone = answer({name: value[i : i + 1] for name, value in tasks.items()})
        np.testing.assert_allclose(together[i : i + 1], alone, rtol=1e-10)


def test_the_trace_is_that_of_the_updates():
    rule = toy.lively_rule()
    method = optimizer(rule, 2, num_evaluation_steps=5)
    tasks = problems(1)
    task = {name: value[0] for name, value in tasks.items()}
    trace = method.trace(task)
    assert trace.keys() == {LOSSES, FORGET_GATES, INPUT_GATES}
    losses = method(tasks, training=False)[0].numpy()
    np.testing.assert_allclose(trace[LOSSES], losses[:-1], rtol=1e-12)  # before each update
    theta, state = task["theta_0"], rule.initial_state(task["theta_0"])
    for t in range(5):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss, _ = quadratic(task).loss(theta, (), t)
        theta, state = rule(tape.gradient(loss, theta), loss, theta, state)
        for name, value in rule.trace(state).items():
            np.testing.assert_allclose(trace[name][t], value, rtol=1e-10)
    np.testing.assert_allclose(losses[-1], quadratic(task).loss(theta, (), 5)[0], rtol=1e-10)


FIRST = (0, 2, 4)  # the first update of a stretch, for each of three problems


def stretches(rule, unroll_steps=2, num_steps=6, **options):
    """Makes a method that trains in stretches of two updates, and three problems in progress."""
    loop = InnerLoop(num_steps, **options)
    method = LearnedOptimizerMethod(rule, QuadraticTasks(D), loop, unroll_steps=unroll_steps)
    return method, {**problems(3), FIRST_STEP: tf.constant(FIRST)}


def test_a_stretch_is_a_part_of_the_way():
    method, tasks = stretches(SGD(0.03, dtype="float64"))
    whole = losses_by_hand(tasks, 0.03, 6)
    expected = [row[first : first + 3] for row, first in zip(whole, FIRST, strict=True)]
    np.testing.assert_allclose(method(tasks, training=True), expected, rtol=1e-11)
    assert method(tasks, training=False).shape == (3, 7)


def test_no_meta_gradient_flows_through_the_updates_before_a_stretch():
    """The result equals one that starts with theta and state of an earlier training."""
    rule = toy.lively_rule()
    method, tasks = stretches(rule)
    weights = [w.value for w in rule.trainable_weights]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(method(tasks, training=True))
    found = tape.gradient(loss, weights)
    loop, expected = InnerLoop(2), [tf.zeros_like(w) for w in weights]
    for number, first in enumerate(FIRST):
        task = {name: value[number] for name, value in tasks.items()}
        problem, theta = quadratic(task), task["theta_0"]
        before = unroll(rule, problem, theta, InnerLoop(first))
        state = rule.initial_state(theta)
        for t in range(first):
            with tf.GradientTape() as inner:
                inner.watch(theta)
                value, _ = problem.loss(theta, (), t)
            theta, state = rule(inner.gradient(value, theta), value, theta, state)
        np.testing.assert_allclose(theta, before.theta, rtol=1e-12)
        with tf.GradientTape() as tape:
            after = unroll(rule, problem, theta, loop, InnerState(theta, (), state), first)
            total = tf.reduce_sum(after.trajectory.losses) + problem.loss(after.theta, (), 0)[0]
        for place, one in enumerate(tape.gradient(total, weights)):
            expected[place] += one
    for one, other in zip(found, expected, strict=True):
        assert np.any(one)
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-12)


def test_the_learned_initial_state_is_trained_by_the_first_stretch_alone():
    rule = HierarchicalRNN(dtype="float64")
    method, tasks = stretches(rule)
    starts = [w for w in rule.trainable_weights if w.name.endswith("_start")]

    def gradients(method, tasks):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(method(tasks, training=True))
        return tape.gradient(loss, [w.value for w in starts], unconnected_gradients="zero")

    first = {name: value[:1] for name, value in tasks.items()}  # begins at update 0
    short = LearnedOptimizerMethod(rule, QuadraticTasks(D), InnerLoop(2))
    for one, other in zip(gradients(method, first), gradients(short, first), strict=True):
        assert np.any(one)
        np.testing.assert_allclose(one, other, rtol=1e-8)
    later = {name: value[1:] for name, value in tasks.items()}
    assert not any(np.any(one) for one in gradients(method, later))


def test_stretches_are_a_function_of_the_number_of_the_task():
    stream = QuadraticTasks(D).episodes("train", 0, training=True)
    drawn = TrainingProblems(stream, 0, num_steps=100, unroll_steps=20, scaling=2.0)
    tasks = [drawn(tf.constant(index))[0] for index in range(40)]
    assert {int(task[FIRST_STEP]) for task in tasks} == {0, 20, 40, 60, 80}
    logarithms = np.log([task[SCALES] for task in tasks])
    assert 1.8 < np.abs(logarithms).max() <= 2.0
    np.testing.assert_allclose(logarithms.mean(), 0.0, atol=0.4)
    again = drawn(tf.constant(7))[0]
    for name, value in tasks[7].items():
        np.testing.assert_array_equal(value, again[name])
    np.testing.assert_array_equal(tasks[7]["matrix"], stream(tf.constant(7))[0]["matrix"])
    assert drawn.fingerprint(2) == stream.fingerprint(2)


def test_a_curriculum_doubles_the_length_of_the_runs():
    """Problems 0-29 begin in the first stretch, later ones in the first 2, 4, and all five."""
    stream = QuadraticTasks(D).episodes("train", 0, training=True)
    drawn = TrainingProblems(stream, 0, num_steps=100, unroll_steps=20, doubling=30)
    firsts = [int(drawn(tf.constant(index, tf.int64))[0][FIRST_STEP]) for index in range(150)]
    for number, expected in enumerate(([0], [0, 20], [0, 20, 40, 60], [0, 20, 40, 60, 80])):
        assert sorted(set(firsts[30 * number : 30 * (number + 1)])) == expected
    assert set(firsts[120:]) == {0, 20, 40, 60, 80}
    late = drawn(tf.constant(2**40, tf.int64))[0][FIRST_STEP]
    assert int(late) in (0, 20, 40, 60, 80)


@pytest.mark.parametrize("unroll_steps", [None, 6])
def test_a_curriculum_needs_stretches(unroll_steps):
    with pytest.raises(OptionError, match=r"^curriculum_problems lengthens runs .* num_steps, 6:"):
        LearnedOptimizerOptions(num_steps=6, unroll_steps=unroll_steps, curriculum_problems=4)


def test_scaled_coordinates_change_gradients_and_not_where_a_problem_starts():
    """Gradient descent in coordinates theta / c has learning rates of c^2 in those of theta."""
    tasks = problems(2)
    scales = tf.constant([[0.5, 1.0, 3.0], [2.0, 1.0, 0.1]], tf.float64)
    found = optimizer(SGD(0.01, dtype="float64"), 3)({**tasks, SCALES: scales})
    for row, matrix, target, theta, scale in zip(
        found, *(tasks[n].numpy() for n in ("matrix", "target", "theta_0")), scales, strict=True
    ):
        for loss in row:
            rest = matrix @ theta - target
            np.testing.assert_allclose(loss, rest @ rest, rtol=1e-10)
            theta = theta - 0.01 * scale.numpy() ** 2 * (2.0 * matrix.T @ rest)


@pytest.mark.parametrize(
    ("meta_loss", "weights", "expected"),
    [
        ("losses", "equal", (1.0 + 2.0 + 4.0 + 8.0 + 8.0 + 2.0) / 6),
        ("losses", "rising", (2.0 / 3 + 4.0 * 2 / 3 + 8.0 / 3 + 2.0 * 2 / 3) / 2),
        ("losses", "last", 3.0),
        ("log_losses", "last", np.log(8.0) / 2),
    ],
)
def test_what_training_makes_small(meta_loss, weights, expected):
    method = LearnedOptimizerMethod(
        SGD(), QuadraticTasks(D), InnerLoop(2), meta_loss=meta_loss, step_weights=weights
    )
    losses = tf.constant([[1.0, 2.0, 4.0], [8.0, 8.0, 2.0]])
    np.testing.assert_allclose(method.training_loss(None, losses), expected, rtol=1e-5)


def test_a_stretch_divides_the_way():
    with pytest.raises(OptionError, match=r"^unroll_steps must divide num_steps, 6, got 4\."):
        stretches(SGD(), unroll_steps=4)


def test_training_makes_a_rule_better_on_problems_it_has_not_seen():
    """The score is the last loss. It falls far below that of the initial rule."""
    toy.seed(0)
    tasks = QuadraticTasks(5)
    rule = SGD(0.001, learned=True)
    method = LearnedOptimizerMethod(rule, tasks, InnerLoop(6))
    compile_method(method, learning_rate=3e-3, clip_norm=0.0)
    training = episode_dataset(
        tasks.episodes("train", 0, training=True), num_episodes=400, episodes_per_step=4
    )
    listed = episode_dataset(tasks.episodes("test", 0), num_episodes=40, episodes_per_step=4)
    before = method.evaluate(listed, verbose=0, return_dict=True)
    method.fit(training, verbose=0, shuffle=False)
    after = method.evaluate(listed, verbose=0, return_dict=True)
    assert after["final_loss"] < 0.5 * before["final_loss"]
    assert after["final_loss"] < after["loss"]  # the last loss, and the mean over all updates
    inputs, labels = next(iter(listed))
    losses = method(inputs)
    np.testing.assert_allclose(OPTIMIZATION.scores(labels, losses), losses[:, -1], rtol=1e-6)


def test_it_is_built_from_settings():
    settings = make_settings(
        {
            "source": "quadratics",
            "quadratic_size": 4,
            "method": "learned_optimizer",
            "rule": "meta_sgd",
            "num_steps": 3,
            "num_evaluation_steps": 7,
            "second_order": True,
        }
    )
    tasks = build_tasks(settings)
    method = build_method(settings, tasks)
    assert method.inner_loop == InnerLoop(3, second_order=True)
    assert method.num_updates == 7
    assert method.blocks == tasks.blocks
    assert [w.shape for w in method.trainable_weights] == [(4,)]
    assert not method.is_episodic
    assert not method.keeps_statistics
    assert method.facts() == {"rule": "MetaSGD"}
    inputs, _ = next(iter(episode_dataset(tasks.episodes("test", 0), num_episodes=1)))
    assert method(inputs).shape == (1, 8)


def test_survives_its_config():
    options = {"unroll_steps": 1, "meta_loss": "log_losses", "step_weights": "last"}
    tasks = QuadraticTasks(4, "paper")
    method = LearnedOptimizerMethod(MetaSGD(0.2, 0.3), tasks, InnerLoop(2), 3, **options)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(method))
    assert copy.get_config() == method.get_config()
    assert copy.blocks == method.blocks
    copy.set_weights(method.get_weights())
    inputs, _ = next(iter(episode_dataset(QuadraticTasks(4).episodes("test", 0))))
    np.testing.assert_array_equal(copy(inputs), method(inputs))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"source": "sine"}, r"learned_optimizer is for problems, but source=sine has functions"),
        ({"source": "quadratics", "start": "c_0"}, r"^start does nothing with"),
        ({"source": "quadratics", "num_shot": 5}, r"^num_shot does nothing with"),
    ],
)
def test_what_has_no_meaning_for_it_is_refused(said, message):
    with pytest.raises(ValueError, match=message):
        make_settings({"method": "learned_optimizer", **said})
