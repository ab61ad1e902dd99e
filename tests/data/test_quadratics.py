"""Tests random quadratics: the loss by hand, both conventions, a pure function of the number."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.quadratics import CONVENTIONS, QuadraticOptions, QuadraticTasks
from tf_metalstm.data.sources.base import SPLITS
from tf_metalstm.options import OptionError


def episodes(split="train", seed=0, training=False, **options):
    return QuadraticTasks(**options).episodes(split, seed, training)


def numbers(of, index):
    """Returns all tensors of one task by name."""
    return {name: value.numpy() for name, value in of(tf.constant(index))[0].items()}


def many(of, number=200):
    drawn = [numbers(of, index) for index in range(number)]
    return {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}


def test_the_loss_is_the_squared_distance():
    """Compares |W theta - y|^2 and its gradient 2 W^T (W theta - y) with NumPy."""
    tasks = QuadraticTasks(size=5)
    task, _ = tasks.episodes("test", 0)(tf.constant(3))
    problem = tasks.problem(task)
    theta = np.random.default_rng(0).normal(size=5).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(at := tf.constant(theta))
        loss, carry = problem.loss(at, problem.initial_carry(), 0)
    matrix, target = task["matrix"].numpy(), task["target"].numpy()
    rest = matrix @ theta - target
    np.testing.assert_allclose(loss, np.sum(rest**2), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, at), 2.0 * matrix.T @ rest, rtol=1e-4, atol=1e-5)
    assert carry == problem.initial_carry() == ()
    assert problem.gradient_scale() == 1.0
    # The loss depends neither on the step nor on earlier calls.
    np.testing.assert_array_equal(problem.loss(at, (), 7)[0], loss)


@pytest.mark.parametrize("size", [1, 4, 10])
def test_shapes_are_those_of_the_size(size):
    tasks = QuadraticTasks(size)
    task, label = tasks.episodes("train", 0)(tf.constant(0))
    shapes = {name: tuple(value.shape) for name, value in task.items()}
    assert shapes == {"matrix": (size, size), "target": (size,), "theta_0": (size,)}
    assert label.shape == ()
    [block] = tasks.blocks
    assert (block.start, block.size, block.shape) == (0, size, (size,))
    assert tasks.task == f"{size}-dimensional"


def test_the_convention_of_the_code():
    """W and y are uniform in [0, 1), and theta_0 is normal with deviation 0.01."""
    drawn = many(episodes(convention="code"))
    for name in ("matrix", "target"):
        values = drawn[name].ravel()
        assert 0.0 <= values.min() < 0.01
        assert 0.99 < values.max() < 1.0
        np.testing.assert_allclose(values.mean(), 0.5, atol=5 * 12**-0.5 / values.size**0.5)
        np.testing.assert_allclose(values.std(), 12**-0.5, rtol=0.05)
    start = drawn["theta_0"].ravel()
    np.testing.assert_allclose(start.mean(), 0.0, atol=5 * 0.01 / start.size**0.5)
    np.testing.assert_allclose(start.std(), 0.01, rtol=0.1)


def test_the_convention_of_the_paper():
    """W and y are standard normal, and theta_0 is zero."""
    drawn = many(episodes(convention="paper"))
    for name in ("matrix", "target"):
        values = drawn[name].ravel()
        np.testing.assert_allclose(values.mean(), 0.0, atol=5 / values.size**0.5)
        np.testing.assert_allclose(values.std(), 1.0, rtol=0.06)
        assert np.abs(values).max() > 2.5
    np.testing.assert_array_equal(drawn["theta_0"], 0.0)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_nothing_within_a_task_is_drawn_twice(convention):
    """Matrix, target and start have separate random streams, and no two tasks are equal."""
    drawn = many(episodes(convention=convention), 20)
    values = [drawn["matrix"], drawn["target"]]
    values += [drawn["theta_0"]] if convention == "code" else []
    values = np.concatenate([each.ravel() for each in values])
    assert len(np.unique(values)) > 0.999 * len(values)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_splits_seeds_and_training_share_no_numbers(convention):
    uses = [(split, 0, training) for split in SPLITS for training in (False, True)]
    uses += [("train", 1, False), ("train", 1, True)]
    seen = []
    for split, seed, training in uses:
        of = episodes(split, seed, training, convention=convention)
        drawn = [numbers(of, index) for index in range(10)]
        seen.append({tuple(each["matrix"].ravel()) for each in drawn})
        assert len(seen[-1]) == 10
        seen.append({tuple(each["target"]) for each in drawn})
    for number, one in enumerate(seen):
        for other in seen[number + 1 :]:
            assert not one & other


def test_a_task_is_a_pure_function_of_seed_split_and_number():
    one, again = numbers(episodes(), 3), numbers(episodes(), 3)
    resumed, _ = next(iter(episode_dataset(episodes(), start=3, num_episodes=1)))
    for name, value in one.items():
        np.testing.assert_array_equal(value, again[name])
        np.testing.assert_array_equal(value, resumed[name][0])
    in_steps, labels = next(iter(episode_dataset(episodes(), episodes_per_step=4)))
    np.testing.assert_array_equal(in_steps["target"][3], one["target"])
    assert labels.shape == (4,)


def test_the_fingerprint_tells_lists_apart():
    same = episodes().fingerprint(5)
    assert same == episodes().fingerprint(5)
    different = {
        same,
        episodes().fingerprint(6),
        episodes(seed=1).fingerprint(5),
        episodes(split="test").fingerprint(5),
        episodes(training=True).fingerprint(5),
        episodes(size=4).fingerprint(5),
        episodes(convention="paper").fingerprint(5),
    }
    assert len(different) == 7


@pytest.mark.parametrize(
    ("convention", "expected"), [("code", "803c24c224819807"), ("paper", "f050291cfbc5b80f")]
)
def test_the_lists_stay(convention, expected):
    """The lists stay fixed, because recorded results were measured on them."""
    assert episodes("test", convention=convention).fingerprint(20) == expected


def test_tasks_are_those_that_the_options_say():
    tasks = QuadraticTasks.from_options(QuadraticOptions(4, "paper"))
    assert tasks.episodes("test", 3) == QuadraticTasks(4, "paper").episodes("test", 3)
    assert tasks.facts() == {
        "name": "quadratics",
        "kind": "problems",
        "objective": "optimization",
        "fingerprint": tasks.data_fingerprint(),
    }
    others = {each.data_fingerprint() for each in (QuadraticTasks(5, "paper"), QuadraticTasks(4))}
    assert tasks.data_fingerprint() not in others
    assert tasks.sizes() == {}
    assert "4 dimensions" in tasks.describe()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"^quadratic_size must be a whole number at least 1, got 0"),
        ({"convention": "book"}, r"^quadratic_convention must be one of code, paper, got 'book'"),
    ],
)
def test_refuses_what_cannot_be(arguments, message):
    with pytest.raises(OptionError, match=message):
        QuadraticTasks(**arguments)


def test_an_unknown_split_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'val': use one of train, validation, test"):
        episodes("val")
