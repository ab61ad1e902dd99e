"""Tests the estimate from the support set: closed forms, cases by hand, simulated classes."""

import math

import numpy as np
import pytest
from export_client import FOLDER
from scipy import stats
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from tf_metalstm.serving import estimate as estimate_of
from tf_metalstm.serving.estimate import (
    Answers,
    ask_in_rounds,
    best_temperature,
    class_means,
    contradicted,
    estimate,
    leave_out,
    nearness,
    sentences,
    softmax,
    threshold,
    wilson,
    with_more,
)


def points(sizes, spread, seed=0, size=6):
    """Makes classes of points around the corners of a box. The best accuracy on them is known."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    features = np.eye(size)[labels] + spread * generator.normal(size=[len(labels), size])
    return features, labels


def by_prototypes(features, labels):
    """Prototypical networks in NumPy, with the interface of `ask_in_rounds`."""

    def ask(rest, left):
        means = [features[rest][labels[rest] == k].mean(axis=0) for k in range(labels.max() + 1)]
        return -np.sum((features[left][:, np.newaxis] - np.stack(means)) ** 2, axis=-1)

    return ask


def estimated(features, labels):
    answers = ask_in_rounds(labels, by_prototypes(features, labels), features)
    return estimate(labels, answers)


@pytest.mark.parametrize(
    ("sizes", "most"), [((5, 5, 5), 20), ((2, 7), 20), ((1, 3, 4), 20), ((30, 30), 5), ((3, 40), 5)]
)
def test_every_round_leaves_out_some_of_each_class(sizes, most):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rounds = leave_out(labels, most)
    assert len(rounds) <= most
    for left in rounds:
        counts = np.bincount(labels[left], minlength=len(sizes))
        for size, count in zip(sizes, counts, strict=True):
            assert count < size or size == 1 == count + 1
            assert (count >= 1) == (size > 1)
    alone = [place for place, label in enumerate(labels) if sizes[label] == 1]
    assert set(np.concatenate(rounds)) == set(range(len(labels))) - set(alone)


@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [0, 1, 2]])
def test_where_nothing_can_be_left_out_nothing_is_said(labels):
    labels = np.array(labels)
    assert leave_out(labels, 20) == []
    found = estimate(labels, ask_in_rounds(labels, lambda rest, left: 1 / 0))
    assert not found.is_known
    assert found.temperature == 1.0
    assert threshold(found.nearness) == -math.inf
    assert len(contradicted(found, labels)) == 0
    [said] = sentences(found, labels, ["a"] * len(labels), ["x", "y", "z"])
    assert "cannot be estimated: that takes two classes, and two pictures" in said


def test_wilson():
    """Compares with SciPy. Without misses the lower end is n / (n + z^2)."""
    for hits, number in ((0, 7), (3, 7), (20, 25), (25, 25)):
        interval = stats.binomtest(hits, number).proportion_ci(method="wilson")
        np.testing.assert_allclose(wilson(hits / number, number), interval, atol=1e-6)
    assert wilson(1.0, 25)[0] == pytest.approx(25 / (25 + 1.959964**2))


def test_odds_grow_with_the_root_of_the_pictures():
    assert with_more(0.5, 4.0) == pytest.approx(2 / 3)  # odds of 1 become 2
    assert with_more(0.8, 1.0) == pytest.approx(0.8)
    assert [with_more(share, 1.25) for share in (0.0, 1.0)] == [0.0, 1.0]


def test_temperature_is_that_of_the_smallest_loss():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, 300)
    logits = 50 * (np.eye(4)[labels] + generator.normal(0, 0.7, [300, 4]))
    target = np.eye(4)[labels] * (1 - 0.25 / 300) + 0.25 / 300 / 4

    def loss(log_temperature):
        shifted = logits / math.exp(log_temperature)
        return -np.sum(target * (shifted - np.logaddexp.reduce(shifted, axis=1)[:, np.newaxis]))

    wanted = math.exp(minimize_scalar(loss, bounds=(0, 8), method="bounded").x)
    found = best_temperature(logits, labels)
    assert found == pytest.approx(wanted, rel=1e-3)
    assert log_loss(labels, softmax(logits / found)) < log_loss(labels, softmax(logits))
    # Neither the scale of the logits nor a number added to a row has an effect.
    moved = 1e4 * logits + generator.normal(size=[300, 1])
    assert best_temperature(moved, labels) == pytest.approx(1e4 * found, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_temperature_where_all_answers_are_right_or_say_nothing(scale):
    labels = np.arange(10) % 2
    found = best_temperature(scale * np.eye(2)[labels], labels)
    # By hand: sigmoid(scale / T) = 1 - 0.25 / 10 / 2.
    assert found == pytest.approx(scale / math.log(79), rel=1e-4)
    assert math.isfinite(best_temperature(np.zeros([10, 2]), labels))


def test_threshold_is_a_place_among_the_sorted():
    near = np.arange(1.0, 40.0)  # a twentieth of 39 + 1 is the second number
    assert threshold(near, 0.05) == 2.0
    assert threshold(near, 0.0625) == 2.5
    assert threshold(near[:3]) == -math.inf
    for wrong in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            threshold(near, wrong)


@pytest.mark.parametrize("number", [5, 9, 18])
def test_threshold_of_few_numbers_is_the_bound_for_one_more(number):
    near = np.sort(np.random.default_rng(number).normal(0.7, 0.1, number))
    bound = stats.t.ppf(0.95, number - 1) * near.std(ddof=1) * math.sqrt(1 + 1 / number)
    assert threshold(near) == pytest.approx(near.mean() - bound, rel=2e-3)


@pytest.mark.parametrize("number", [8, 30])
def test_false_alarms_are_as_many_as_were_chosen(number):
    generator = np.random.default_rng(3)
    near = np.sort(generator.normal(size=[2000, number]), axis=1)
    below = [generator.normal() < threshold(row, 0.1) for row in near]
    assert np.mean(below) == pytest.approx(0.1, abs=0.02)


def test_nearness_is_a_cosine():
    features, labels = np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 5.0]]), np.array([0, 1, 1])
    means = class_means(features, labels, 2)
    np.testing.assert_allclose(means, np.eye(2))
    np.testing.assert_allclose(nearness(np.array([[1.0, 1.0], [0.0, 0.0]]), means), [0.5**0.5, 0.0])


def test_pictures_left_out_are_as_near_as_they_will_be_in_use():
    """Two pictures of a class have the cosine r. The mean of K is nearer than that of K - 1."""
    features, labels = points([2] * 40, 0.15, size=40)
    found = estimated(features, labels)
    others, _ = points([1] * 40, 0.15, seed=9, size=40)
    in_use = nearness(others, class_means(features, labels, 40))
    assert found.nearness.mean() == pytest.approx(in_use.mean(), abs=0.01)
    # Without the correction the left-out pictures are further away.
    left = estimate_of._nearer_in_use(0.7, 1.0, 2.0)
    assert left == pytest.approx(math.sqrt(1 / 0.85))


def test_by_hand():
    """Two classes have two pictures each. A round leaves out the first, another the second."""
    logits = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]])
    answers = Answers(np.array([0, 2, 1, 3]), logits, np.arange(4.0), np.full([4], 0.5))
    labels = np.array([0, 0, 1, 1])
    found = estimate(labels, answers)
    assert found.number == 4
    odds = 3 * math.sqrt(2)  # 3 of 4 right, and twice as many pictures in use
    assert found.accuracy == pytest.approx(odds / (1 + odds))
    assert (found.low, found.high) == wilson(found.accuracy, 4 / 1.4)
    np.testing.assert_array_equal(found.nearness, np.arange(4.0))
    temperature = best_temperature(logits, labels[answers.places])
    assert found.temperature == pytest.approx(temperature / math.sqrt(2))
    row = softmax(np.array([[2.0, 0.0]]) / temperature)[0]
    np.testing.assert_allclose(found.probabilities, [row, row, row[::-1], row])


def test_it_is_the_accuracy_in_the_long_run():
    """The accuracy of these classes is known. Leaving out only one picture gives far too little."""
    estimates, measured, inside = [], [], []
    for seed in range(40):
        features, labels = points([4] * 5, 0.45, seed)
        found = estimated(features, labels)
        queries, known = points([60] * 5, 0.45, 1000 + seed)
        both = np.concatenate([features, queries])
        ask = by_prototypes(both, np.concatenate([labels, known]))
        logits = ask(np.arange(20), np.arange(20, 320))
        estimates.append(found.accuracy)
        measured.append(np.mean(logits.argmax(axis=1) == known))
        inside.append(found.low <= measured[-1] <= found.high)
    assert np.mean(estimates) == pytest.approx(np.mean(measured), abs=0.02)
    assert np.mean(inside) >= 0.9


def test_a_picture_in_the_wrong_folder_is_named():
    features, labels = points([6] * 4, 0.12)
    found = estimated(features, labels)
    assert len(contradicted(found, labels)) == 0
    labels[2] = 3
    found = estimated(features, labels)
    np.testing.assert_array_equal(contradicted(found, labels), [2])
    names = [f"{k}.jpg" for k in range(24)]
    first, second = sentences(found, labels, names, ["ant", "bee", "cat", "dog"])
    assert first.startswith("About 9")
    assert "from 24 support pictures" in first
    assert second == "Perhaps in the wrong class: 2.jpg (dog) looks like ant."


def test_clients_estimate_by_the_same_file():
    """export/ works without the package, so it has a copy of this file."""
    ours = estimate_of.__file__
    with open(ours, "rb") as one, (FOLDER / "estimate.py").open("rb") as other:
        assert one.read() == other.read(), f"cp {ours} export/estimate.py"
