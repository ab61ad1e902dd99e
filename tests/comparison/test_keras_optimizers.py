"""Tests Keras's optimizers on a list of problems against steps by hand, one problem at a time."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.comparison.keras_optimizers import (
    BASELINES,
    RATES,
    Baseline,
    Minimizer,
    applicable,
    search_rate,
)
from tf_metalstm.data.quadratics import QuadraticTasks
from tf_metalstm.parameters import blocks_of

E, D, T = 3, 4, 3
TASKS = QuadraticTasks(D)
BY_NAME = {each.name: each for each in BASELINES}


@pytest.fixture(scope="module")
def inputs():
    drawn = [TASKS.episodes("test", 0)(tf.constant(index))[0] for index in range(E)]
    return {name: tf.stack([each[name] for each in drawn]) for name in drawn[0]}


def loss_and_slope(inputs, number, theta):
    matrix, target = inputs["matrix"][number].numpy(), inputs["target"][number].numpy()
    rest = matrix @ theta - target
    return rest @ rest, 2.0 * matrix.T @ rest


def descent(inputs, number, rate):
    theta, found = inputs["theta_0"][number].numpy().astype(float), []
    for _ in range(T + 1):
        loss, slope = loss_and_slope(inputs, number, theta)
        found.append(loss)
        theta = theta - rate * slope
    return found


def test_gradient_descent_by_hand_and_every_rate_from_a_fresh_start(inputs):
    minimizer = Minimizer(BY_NAME["SGD"], TASKS, inputs, T)
    for rate in (0.02, 0.05, 0.02):
        expected = [descent(inputs, number, rate) for number in range(E)]
        np.testing.assert_allclose(minimizer.losses(rate), expected, rtol=1e-4)


def test_schedule_free_is_judged_at_its_average(inputs):
    """Compares with algorithm 1 of Defazio et al., 2024, in NumPy: gradients at y, losses at x.

    In one point it follows Keras 3.15 on TensorFlow, which takes x out of y with the new z.
    """
    found = Minimizer(BY_NAME["Schedule-Free AdamW"], TASKS, inputs, T).losses(0.1)
    for number in range(E):
        x = z = inputs["theta_0"][number].numpy().astype(float)
        square = 0.0
        for t in range(T):
            np.testing.assert_allclose(
                found[number, t], loss_and_slope(inputs, number, x)[0], rtol=1e-3
            )
            _, slope = loss_and_slope(inputs, number, 0.1 * z + 0.9 * x)
            square = 0.999 * square + 0.001 * slope**2
            moved = 0.1 * slope / (np.sqrt(square / (1 - 0.999 ** (t + 1))) + 1e-8)
            z, x = z - moved, x + 0.1 / 0.9 * moved
            x = x + (z - x) / (t + 1)
        np.testing.assert_allclose(
            found[number, T], loss_and_slope(inputs, number, x)[0], rtol=1e-3
        )


def test_variables_of_each_problem_are_as_those_of_all(inputs):
    """Checks with Adam that variables are split and joined correctly, as Muon needs it."""
    alone = Baseline("alone", keras.optimizers.Adam, needs_matrices=True)
    one, other = (Minimizer(each, TASKS, inputs, 2) for each in (alone, BY_NAME["Adam"]))
    np.testing.assert_allclose(one.losses(0.1), other.losses(0.1), rtol=1e-4)


def test_muon_is_for_matrices():
    vector, matrix = (blocks_of([("theta", shape)]) for shape in ((4,), (2, 2)))
    assert {each.name for each in applicable(matrix)} == BY_NAME.keys()
    assert {each.name for each in applicable(vector)} == BY_NAME.keys() - {"Muon"}


class Bowl:
    """A problem whose loss depends only on the learning rate; it is NaN if the rate is too high."""

    def losses(self, rate):
        last = np.nan if rate > 0.5 else (np.log10(rate) - np.log10(0.02)) ** 2
        return np.array([[1.0, last], [1.0, last]])


def test_the_rate_is_searched_around_the_best():
    best, found = search_rate(Bowl())
    assert len(RATES) >= 12
    assert found.keys() >= set(RATES)
    assert best == pytest.approx(0.03 / 10**0.25)  # 0.0169 is nearer to 0.02 than 0.03 is
    assert found[3.0] == float("inf")
