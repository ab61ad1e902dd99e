"""Tests classical functions: minima, values from the literature, noise only on gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.data.classical_functions import (
    FUNCTIONS,
    ClassicalFunctionOptions,
    ClassicalFunctionTasks,
)
from tf_metalstm.options import OptionError

MINIMA = {
    "rosenbrock": [1.0, 1.0],
    "ackley": [0.0, 0.0],
    "beale": [3.0, 0.5],
    "booth": [1.0, 3.0],
    "matyas": [0.0, 0.0],
    "styblinski_tang": [-2.903534, -2.903534],
}
# The value at (1, 2) was computed by hand.
VALUES = {
    "rosenbrock": 100.0 * (2 - 1) ** 2,
    "ackley": 20.0 - 20.0 * np.exp(-0.2 * np.sqrt(2.5)) + np.e - np.exp(1.0),
    "beale": 2.5**2 + 5.25**2 + 9.625**2,
    "booth": (1 + 4 - 7) ** 2 + (2 + 2 - 5) ** 2,
    "matyas": 0.26 * 5 - 0.48 * 2,
    "styblinski_tang": ((1 - 16 + 5) + (16 - 64 + 10)) / 4 + 39.16616570377142,
}


def value_and_slope(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x := tf.constant(x, tf.float64))
        value = function.value(x)
    return float(value), tape.gradient(value, x).numpy()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_minimum_is_where_it_should_be_and_zero(name):
    value, slope = value_and_slope(FUNCTIONS[name], MINIMA[name])
    np.testing.assert_allclose(value, 0.0, atol=1e-5)
    np.testing.assert_allclose(slope, 0.0, atol=1e-4)
    np.testing.assert_allclose(value_and_slope(FUNCTIONS[name], [1.0, 2.0])[0], VALUES[name])
    generator = np.random.default_rng(0)
    for _ in range(50):
        x = generator.uniform(-FUNCTIONS[name].reach, FUNCTIONS[name].reach, 2)
        assert value_and_slope(FUNCTIONS[name], x)[0] >= 0.0


def test_noise_is_on_the_gradient_alone_and_new_at_each_step():
    plain, noisy = (
        ClassicalFunctionTasks(ClassicalFunctionOptions("booth", 2, noise)) for noise in (0.0, 0.5)
    )
    task, _ = plain.episodes("test", 0)(tf.constant(0))
    theta, slopes = tf.constant([1.0, 3.0]), []
    for step in range(60):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss, _ = noisy.problem(task).loss(theta, (), step)
        assert float(loss) == 0.0
        slopes.append(tape.gradient(loss, theta).numpy())
    assert len({tuple(slope) for slope in slopes}) == 60
    np.testing.assert_allclose(np.std(slopes), 0.5, rtol=0.25)
    np.testing.assert_allclose(plain.problem(task).loss(theta, (), 0)[0], 0.0)


def test_starts_are_a_function_of_the_number_within_the_box():
    tasks = ClassicalFunctionTasks(ClassicalFunctionOptions("ackley", 3))
    drawn = [
        tasks.episodes("train", 0)(tf.constant(index))[0]["theta_0"].numpy() for index in range(50)
    ]
    assert 3.5 < np.abs(drawn).max() <= 4.0
    again = tasks.episodes("train", 0)(tf.constant(7))[0]["theta_0"]
    np.testing.assert_array_equal(again, drawn[7])
    prints = {
        tasks.episodes(split, seed, training).fingerprint(2)
        for split, seed, training in (("train", 0, False), ("train", 0, True), ("test", 0, False))
    }
    assert len(prints) == 3
    assert tasks.task == "ackley in 3 dimensions"


def test_a_function_of_two_numbers_has_no_other_size():
    with pytest.raises(
        OptionError, match=r"^test_function_size must be 2 with test_function=beale"
    ):
        ClassicalFunctionOptions("beale", 3)
