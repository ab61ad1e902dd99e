"""Estimates how good a classifier will be, from its support pictures alone.

In each round one picture of every class is left out. The model adapts to the others and classifies
those left out:

    odds       = hits / misses of all rounds * sqrt(K / (K - 1))
    accuracy   = odds / (1 + odds)
    interval   that of Wilson, 95 %; the number of trials is that of pictures, divided by 1.4
    T          minimizes the mean of -log softmax(logits / T) at the right classes; / the root
    nearness   = cosine of a picture's features with the nearest mean of a class
    foreign    a picture whose nearness is below that of nearly all pictures left out

The answers for a picture are averaged before hits and misses are counted. K / (K - 1) is averaged
over all answers, so small classes count more often in it; with classes of unequal sizes this was
nearer to the accuracy than the mean over pictures.

One picture of *every* class is left out, because a class with fewer pictures than the others is
chosen less often. The root corrects for the number of pictures: a model has K pictures of a class
in use and K - 1 in a round. With K it makes fewer errors, and its logits differ more. The factor
1.4 is there because the answers are not independent: the pictures left out of one round are support
pictures in the next. Root and 1.4 were measured on photographs of clothes, hand signs and textures
with 2 to 10 pictures a class; docs/lab_book/honest_answers.md says how well they hold.

This file is in `tf_metalstm/serving` and in `export`, twice the same, because `export` must not
need the package. It only needs NumPy.

    letter   meaning
    B        support pictures       N   classes       D   features       M   answers in all rounds
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

ROUNDS, ROUNDS_BY_UPDATES = 20, 5
"""Largest number of rounds: of a model that compares features, and of one that makes updates."""

FALSE_ALARMS = 0.05
"""Default share of pictures of known classes that may be called foreign."""

_Z = 1.959964  # for 95 %
_SCATTER = 1.4
_SMOOTHING = 0.25  # pictures of unknown class, which keep T above 0 if all answers are right
_FEWEST = 4  # pictures that a threshold needs
_NAMES = 5  # names in a sentence
_OWN = 0.1  # a contradicted picture has less probability for its own class


class Answers(NamedTuple):
    """Answers for the pictures left out, of all rounds.

    places: place of the picture in the support set, [M].
    logits: logits of the classes, [M, N].
    near: nearness of the picture, [M]; see `nearness`.
    kept: share of the pictures of its class that the model had adapted to, [M].
    """

    places: np.ndarray
    logits: np.ndarray
    near: np.ndarray
    kept: np.ndarray


class Estimate(NamedTuple):
    """The estimate for a classifier.

    accuracy: expected accuracy for pictures like those of the support set; NaN if unknown.
    low, high: its 95 % interval.
    number: number of support pictures that it comes from.
    temperature: divisor of the logits that calibrates them.
    nearness: expected nearness in use of the pictures left out, sorted, [number].
    probabilities: probabilities of the classes for each support picture, [B, N]; NaN for a
        picture that is alone in its class.
    """

    accuracy: float
    low: float
    high: float
    number: int
    temperature: float
    nearness: np.ndarray
    probabilities: np.ndarray

    @property
    def is_known(self) -> bool:
        """Whether there is an estimate: it needs two classes, and two pictures of one of them."""
        return self.number > 0


def leave_out(labels: np.ndarray, most: int) -> list[np.ndarray]:
    """Returns the places of the pictures to leave out, for each round.

    A round leaves out one picture of every class with two or more. Each picture is left out at
    least once. A class with more than `most` pictures is divided into that many parts.

    Args:
        labels: labels in [0, N), [B].
        most: largest number of rounds.
    """
    generator = np.random.default_rng(0)
    classes = [np.flatnonzero(labels == number) for number in range(int(labels.max()) + 1)]
    classes = [places for places in classes if len(places) > 1]
    if not classes or labels.min() == labels.max():
        return []
    needed = min(max(map(len, classes)), most)
    rounds: list[np.ndarray] = []
    for _ in range(most // needed):
        parts = [
            np.array_split(generator.permutation(places), min(len(places), needed))
            for places in classes
        ]
        rounds += [np.concatenate([p[turn % len(p)] for p in parts]) for turn in range(needed)]
    return rounds


def ask_in_rounds(
    labels: np.ndarray,
    ask: Callable[[np.ndarray, np.ndarray], np.ndarray],
    features: np.ndarray | None = None,
    most: int = ROUNDS,
) -> Answers:
    """Leaves pictures out in rounds and classifies them.

    Args:
        labels: labels of the support set, in [0, N), [B].
        ask: adapts to the pictures at places [B - L] and returns logits [L, N] of those at [L].
        features: features of the support set, [B, ...]; None for a model without features.
        most: largest number of rounds.
    """
    num_way = int(labels.max()) + 1
    sizes = np.bincount(labels)
    rounds = []
    for left in leave_out(labels, most):
        rest = np.setdiff1d(np.arange(len(labels)), left)
        logits = np.asarray(ask(rest, left), np.float64)
        if features is None:
            near = certainty(logits)
        else:
            near = nearness(features[left], class_means(features[rest], labels[rest], num_way))
        kept = (np.bincount(labels[rest], minlength=num_way) / sizes)[labels[left]]
        rounds.append((left, logits, near, kept))
    if not rounds:
        return Answers(np.zeros([0], int), np.zeros([0, num_way]), np.zeros([0]), np.zeros([0]))
    places, logits, near, kept = (np.concatenate(parts) for parts in zip(*rounds, strict=True))
    if features is not None:
        per_class = float(sizes[labels[places]].mean())
        near = near * _nearer_in_use(float(near.mean()), per_class * float(kept.mean()), per_class)
    return Answers(places, logits, near, kept)


def estimate(labels: np.ndarray, answers: Answers) -> Estimate:
    """Returns the estimate.

    Args:
        labels: labels of the support set, in [0, N), [B].
        answers: the result of `ask_in_rounds`.
    """
    places, logits, near, kept = answers
    probabilities = np.full([len(labels), logits.shape[1]], np.nan)
    if not len(places):
        return Estimate(math.nan, 0.0, 1.0, 0, 1.0, near, probabilities)
    hits = _mean_of_each(places, np.argmax(logits, axis=1) == labels[places])
    more = float(1.0 / kept.mean())
    accuracy = with_more(float(hits.mean()), more)
    low, high = wilson(accuracy, len(hits) / _SCATTER)
    temperature = best_temperature(logits, labels[places])
    columns = softmax(logits / temperature).T
    probabilities[np.unique(places)] = np.transpose([_mean_of_each(places, c) for c in columns])
    near = np.sort(_mean_of_each(places, near))
    in_use = temperature / math.sqrt(more)
    return Estimate(accuracy, low, high, len(hits), in_use, near, probabilities)


def wilson(share: float, number: float) -> tuple[float, float]:
    """Returns the 95 % interval of a share, for a number of trials (Wilson 1927)."""
    middle = share + _Z**2 / (2 * number)
    half = _Z * math.sqrt(share * (1 - share) / number + (_Z / (2 * number)) ** 2)
    whole = 1 + _Z**2 / number
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def with_more(accuracy: float, times: float) -> float:
    """Returns the accuracy to expect from `times` as many pictures of each class."""
    root = math.sqrt(times)
    return root * accuracy / (1 - accuracy + root * accuracy)


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns T that minimizes the mean of -log softmax(logits / T) at the right classes.

    A quarter of a picture of unknown class is added, so that T stays above 0 if all answers are
    right. The derivative by 1 / T rises, so bisection finds its zero.

    Args:
        logits: logits of the answers, [M, N].
        labels: their right labels in [0, N), [M].
    """
    number, num_way = logits.shape
    unknown = _SMOOTHING / number
    target = np.eye(num_way)[labels] * (1.0 - unknown) + unknown / num_way
    logits = logits - logits.max(axis=1, keepdims=True)
    spread = max(float(np.mean(-logits.mean(axis=1))), 1e-12)
    low, high = -9.0, 9.0  # limits of the logarithm of spread / T
    for _ in range(60):
        middle = (low + high) / 2
        excess = softmax(logits * (math.exp(middle) / spread)) - target
        low, high = (low, middle) if np.sum(excess * logits) > 0 else (middle, high)
    return spread * math.exp(-(low + high) / 2)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax of logits [B, N], [B, N]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def class_means(features: np.ndarray, labels: np.ndarray, num_way: int) -> np.ndarray:
    """Returns the mean of the unit features of each class, scaled to length 1, [N, D]."""
    units = unit(features)
    sums = np.zeros([num_way, units.shape[1]])
    np.add.at(sums, labels, units)
    return unit(sums)


def nearness(features: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Returns the cosine of features [B, ...] with the nearest mean of [N, D], [B]."""
    return (unit(features) @ means.T).max(axis=1)


def certainty(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the highest probability, [B]; a nearness without features."""
    return np.log(softmax(logits).max(axis=1))


def unit(features: np.ndarray) -> np.ndarray:
    """Returns features [B, ...] as vectors of length 1, [B, D]; zeros stay zeros."""
    flat = np.reshape(features, [len(features), -1]).astype(np.float64)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-30)


def threshold(near: Sequence[float] | np.ndarray, false_alarms: float = FALSE_ALARMS) -> float:
    """Returns the nearness below which a picture is foreign.

    Another number falls below place false_alarms * (n + 1) of n sorted numbers with the
    probability false_alarms. The threshold is the number at this place, interpolated between two
    if necessary. With too few numbers for that, it is the bound for another number from a normal
    distribution, mean - t s sqrt(1 + 1 / n). With fewer than four numbers nothing is foreign.

    Args:
        near: nearness of pictures of known classes, sorted, [n].
        false_alarms: share of pictures of known classes that may be called foreign.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    if not 0.0 < false_alarms < 1.0:
        raise ValueError(
            f"The share of false alarms must be between 0 and 1, got {false_alarms}: give 0.05 for "
            "one in twenty."
        )
    near = np.asarray(near, np.float64)
    number = len(near)
    if number < _FEWEST:
        return -math.inf
    place = false_alarms * (number + 1)
    if place < 1.0:
        bound = _student(1.0 - false_alarms, number - 1) * math.sqrt(1 + 1 / number)
        return float(near.mean() - bound * near.std(ddof=1))
    return float(np.interp(place, np.arange(1, number + 1), near))


def contradicted(estimate: Estimate, labels: np.ndarray) -> np.ndarray:
    """Returns the places of support pictures that look mislabelled.

    A picture looks mislabelled if its own class gets a probability below 0.1 when it is left out.

    Args:
        estimate: the result of `estimate`.
        labels: labels of the support set, in [0, N), [B].
    """
    return np.flatnonzero(estimate.probabilities[np.arange(len(labels)), labels] < _OWN)


def sentences(
    estimate: Estimate, labels: np.ndarray, names: Sequence[str], class_names: Sequence[str]
) -> list[str]:
    """Returns sentences for the user: the estimate, and pictures that look mislabelled.

    Args:
        estimate: the result of `estimate`.
        labels: labels of the support set, in [0, N), [B].
        names: names of the support pictures, [B].
        class_names: names of the classes, [N].
    """
    said = [in_words(for_json(estimate))]
    places = contradicted(estimate, labels)
    if len(places):
        listed = [
            f"{names[place]} ({class_names[labels[place]]}) looks like "
            f"{class_names[int(np.argmax(estimate.probabilities[place]))]}"
            for place in places[:_NAMES]
        ]
        more = f"; and {len(places) - _NAMES} more" if len(places) > _NAMES else ""
        said.append(f"Perhaps in the wrong class: {'; '.join(listed)}{more}.")
    return said


def in_words(numbers: dict[str, Any] | None) -> str:
    """Returns the sentence about the accuracy.

    Args:
        numbers: the result of `for_json`.
    """
    if numbers is None:
        return (
            "How many answers will be right cannot be estimated: that takes two classes, and two "
            "pictures of one of them."
        )
    low, high = numbers["interval"]
    return (
        f"About {numbers['accuracy']:.0%} of the answers will be right (95 % interval {low:.0%} to "
        f"{high:.0%}, from {numbers['support_pictures']} support pictures), if the pictures are "
        "like those of the support set."
    )


def for_json(estimate: Estimate) -> dict[str, Any] | None:
    """Returns an estimate as numbers for JSON; None if there is none."""
    if not estimate.is_known:
        return None
    return {
        "accuracy": estimate.accuracy,
        "interval": [estimate.low, estimate.high],
        "support_pictures": estimate.number,
        "temperature": estimate.temperature,
    }


def _nearer_in_use(near: float, kept: float, per_class: float) -> float:
    """Returns the factor from the nearness in a round to that in use, with all pictures.

    If two pictures of a class have the cosine r, a picture has the cosine
    r / sqrt(r + (1 - r) / m) with the mean of m others. This is solved for r, with m of the rounds.
    """
    square = max(near, 1e-3) ** 2
    linear = square * (kept - 1)
    r = min(1.0, (linear + math.sqrt(linear**2 + 4 * kept * square)) / (2 * kept))
    return math.sqrt((r + (1 - r) / kept) / (r + (1 - r) / per_class))


def _mean_of_each(places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the mean of the values at each place, in the order of the places."""
    _, numbers = np.unique(places, return_inverse=True)
    return np.bincount(numbers, values) / np.bincount(numbers)


def _student(probability: float, freedom: int) -> float:
    """Returns a quantile of Student's distribution (Abramowitz & Stegun 26.7.5)."""
    z = statistics.NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
