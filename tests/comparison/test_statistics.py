"""Tests numbers about loss curves in closed form."""

import numpy as np
import pytest

from tf_metalstm.comparison.statistics import (
    bootstrap,
    compare,
    curve,
    inter_quartile_mean,
    log10_mean,
    speed_up,
)


def test_the_inter_quartile_mean_leaves_out_both_ends():
    assert inter_quartile_mean(np.arange(8.0)) == np.mean([2, 3, 4, 5])
    assert inter_quartile_mean(np.array([1.0, np.inf, 2.0, 3.0, 0.0, 2.0, 2.0, 2.0])) == 2.0
    # A quarter of six values is one and a half, so the second and the fifth value count half.
    assert inter_quartile_mean(np.array([0.0, 1, 2, 3, 4, 9])) == (0.5 * 1 + 2 + 3 + 0.5 * 4) / 3


def test_the_bootstrap_of_a_mean_is_near_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = bootstrap(lambda rows: values[rows].mean(), 400)
    assert found.value == values.mean()
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(
        [found.low, found.high], [found.value - half, found.value + half], atol=0.03
    )
    assert bootstrap(lambda rows: values[rows].mean(), 400) == found


def test_an_optimizer_that_is_ten_times_as_good():
    adam = np.outer([1.0, 2.0, 3.0, 4.0], [8.0, 4.0, 2.0, 1.0])
    losses = adam.copy()
    losses[:, 1:] = adam[:, 1:] / 10
    found = compare(losses, adam, adam)
    np.testing.assert_allclose(found.log10_final.value, np.log10(0.25))
    for one, expected in ((found.below_best, -1.0), (found.over_adam, 0.1)):
        np.testing.assert_allclose(one, [expected] * 3, atol=1e-12)  # for each problem by itself
    assert found.speed_up == 3.0
    itself = compare(adam, adam, adam)
    assert itself.speed_up == 1.0
    np.testing.assert_allclose(itself.below_best, [0.0] * 3, atol=1e-12)


def test_what_diverges_is_infinitely_bad():
    assert log10_mean(np.array([1.0, np.nan])) == float("inf")
    assert speed_up(np.full((2, 3), 5.0), np.ones((2, 3))) is None
    losses = np.array([1.0] * 49 + [np.inf])
    found = bootstrap(lambda rows: log10_mean(losses[rows]), 50)
    assert found == (np.inf, 0.0, np.inf)  # some samples leave the infinite one out


def test_a_curve_has_its_interval():
    mean, interval = curve(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(mean, [2.0, 5.0])
    np.testing.assert_allclose(interval, [1.96 * np.sqrt(2.0) / np.sqrt(2.0), 0.0])
    assert curve(np.array([[1.0, 2.0]]))[1] == pytest.approx([np.nan, np.nan], nan_ok=True)
