"""Compares the estimate and the warnings of export/c with those in Python, number by number."""

import ctypes
import subprocess

import numpy as np
import pytest
from c_programs import needs_compiler
from export_client import FOLDER

from tf_metalstm.serving import estimate as in_python
from tf_metalstm.serving.remarks import look_at

pytestmark = needs_compiler
sizes, numbers = ctypes.c_size_t, ctypes.POINTER(ctypes.c_double)


class Rounds(ctypes.Structure):
    _fields_ = [("left", ctypes.POINTER(ctypes.POINTER(ctypes.c_ubyte))), ("count", sizes)]


class LeftAnswers(ctypes.Structure):
    _fields_ = [
        ("count", sizes),
        ("places", ctypes.POINTER(sizes)),
        ("logits", numbers),
        ("near", numbers),
        ("kept", numbers),
    ]


class Expected(ctypes.Structure):
    _fields_ = [
        ("accuracy", ctypes.c_double),
        ("low", ctypes.c_double),
        ("high", ctypes.c_double),
        ("number", sizes),
        ("near", numbers),
        ("looks_like", ctypes.POINTER(sizes)),
    ]


class Look(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("label", ctypes.c_char_p),
        ("thumbnail", ctypes.c_ubyte * (16 * 16 * 3)),
        ("size", sizes),
        ("is_blank", ctypes.c_int),
        ("figure", ctypes.c_int),
    ]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    built = tmp_path_factory.mktemp("library") / "own.so"
    sources = [FOLDER / "c" / f"{name}.c" for name in ("estimate", "folders", "remarks")]
    command = ["cc", "-std=c11", "-shared", "-fPIC", "-o", built, *sources, "-lm"]
    subprocess.run(list(map(str, command)), check=True)
    found = ctypes.CDLL(str(built))
    found.rounds_of.restype, found.expect.restype = Rounds, Expected
    found.look_at.restype, found.nearness_limit.restype = Look, ctypes.c_double
    return found


def as_sizes(values):
    return (sizes * len(values))(*map(int, values))


def as_numbers(values):
    return (ctypes.c_double * np.size(values))(*np.ravel(values))


def support(classes, seed=0):
    """Returns mixed labels of classes with these sizes."""
    labels = np.repeat(np.arange(len(classes)), classes)
    return np.random.default_rng(seed).permutation(labels)


@pytest.mark.parametrize(
    ("classes", "most"),
    [((5, 5, 5), 20), ((2, 7), 20), ((1, 3, 4), 20), ((30, 31), 5), ((3, 40, 1), 20), ((1, 1), 5)],
)
def test_the_same_pictures_are_left_out(library, classes, most):
    labels = support(classes)
    found = library.rounds_of(
        as_sizes(labels), sizes(len(labels)), sizes(len(classes)), sizes(most)
    )
    rounds = [np.flatnonzero(found.left[i][: len(labels)]) for i in range(found.count)]
    expected = [np.sort(left) for left in in_python.leave_out(labels, most)]
    assert [one.tolist() for one in rounds] == [one.tolist() for one in expected]


@pytest.mark.parametrize("spread", [0.2, 0.9, 3.0])
@pytest.mark.parametrize("has_features", [True, False])
def test_the_same_is_expected(library, spread, has_features):
    labels = support((6, 9, 3), 1)
    generator = np.random.default_rng(2)
    features = np.eye(6)[labels] + spread * generator.normal(size=[len(labels), 6])

    def ask(rest, left):
        means = [features[rest][labels[rest] == k].mean(axis=0) for k in range(3)]
        return -np.sum((features[left][:, np.newaxis] - np.stack(means)) ** 2, axis=-1)

    answers = in_python.ask_in_rounds(labels, ask, features if has_features else None)
    expected = in_python.estimate(labels, answers)
    near = answers.near
    if has_features:  # the nearness before it is scaled
        per_class = np.bincount(labels)[labels[answers.places]].mean()
        low, high = 1e-3, 1.0
        for _ in range(60):  # the scaled nearness must have the mean of the answers
            middle = (low + high) / 2
            kept = per_class * answers.kept.mean()
            scaled = middle * in_python._nearer_in_use(middle, kept, per_class)
            low, high = (middle, high) if scaled < near.mean() else (low, middle)
        near = near * low / near.mean()
    given = LeftAnswers(
        len(near),
        as_sizes(answers.places),
        as_numbers(answers.logits),
        as_numbers(near),
        as_numbers(answers.kept),
    )
    found = library.expect(
        as_sizes(labels), sizes(len(labels)), sizes(3), ctypes.byref(given), int(has_features)
    )
    assert found.number == expected.number
    wanted = (expected.accuracy, expected.low, expected.high)
    np.testing.assert_allclose((found.accuracy, found.low, found.high), wanted, rtol=1e-9)
    np.testing.assert_allclose(found.near[: found.number], expected.nearness, rtol=1e-6)
    wrong = in_python.contradicted(expected, labels)
    looks = np.array(found.looks_like[: len(labels)])
    assert np.flatnonzero(looks < 3).tolist() == wrong.tolist()
    assert looks[wrong].tolist() == np.argmax(expected.probabilities[wrong], axis=1).tolist()


@pytest.mark.parametrize("number", [0, 3, 4, 9, 39])
@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.99])
def test_the_same_limit_of_nearness(library, number, share):
    near = np.sort(np.random.default_rng(number).normal(0.7, 0.1, number))
    given = Expected(0, 0, 0, number, as_numbers(near), None)
    found = library.nearness_limit(ctypes.byref(given), ctypes.c_double(share))
    assert found == pytest.approx(in_python.threshold(near, share), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 9, 3), (16, 16, 1), (84, 60, 3)])
@pytest.mark.parametrize("kind", ["noise", "blank", "dark", "light"])
def test_the_same_is_remembered_of_a_picture(library, shape, kind):
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, 256, shape).astype(np.float32)
    if kind != "noise":
        pixels = np.full(shape, 240 if kind == "dark" else 12, np.float32) + pixels % 10
    if kind in ("dark", "light"):
        pixels[shape[0] // 3 : -1, shape[1] // 3 : -1] = 128
    expected = look_at("x", None, pixels)
    given = (ctypes.c_float * pixels.size)(*pixels.ravel().tolist())
    found = library.look_at(b"x", None, given, *map(sizes, shape))
    difference = np.array(found.thumbnail[: found.size], int) - expected.thumbnail.ravel()
    assert np.abs(difference).max() <= 1
    assert np.abs(difference).mean() < 0.01
    assert (bool(found.is_blank), found.figure) == (expected.is_blank, expected.figure)
