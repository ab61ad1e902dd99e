"""Hundreds of support pictures and queries go through the network in parts, in all clients.

The value of each picture is its place, so that another order would be seen.
"""

import types

import numpy as np
import pytest
import tqdm
from export_client import FirstClass, Value, adapted, client

from tf_metalstm import loaded_model

SHAPE = (4, 4, 1)
NUMBERS = [1, 2, 63, 64, 65, 127, 128, 129, 500, 1000]


class Counting:
    """Stands for a model that compares features. It records the number of images in each call."""

    def __init__(self):
        self.sizes = []
        known = {"features": self.features, "adapt_features": self.adapt}
        known["predict_named"] = FirstClass().signatures["predict_named"]
        self.signatures = {
            name: one if name == "predict_named" else FirstClass.Signature(one, "class_names")
            for name, one in known.items()
        }

    def features(self, images):
        self.sizes.append(len(images))
        return {"features": Value(np.reshape(images, [len(images), -1]))}

    def adapt(self, support_features, support_labels):
        return {"means": Value(support_features[:2])}


@pytest.fixture
def bars(monkeypatch):
    """Records the steps of every progress bar."""
    found = []

    def bar(steps=None, **named):
        found.append(named.get("total") or len(steps))
        return steps

    monkeypatch.setattr(tqdm, "tqdm", bar)
    return found


def images(number):
    return np.broadcast_to(np.arange(number).reshape(-1, 1, 1, 1), [number, *SHAPE])


@pytest.mark.parametrize("number", NUMBERS)
def test_support_pictures_of_the_python_client(number, bars):
    model = Counting()
    labels = [f"class {place % 2}" for place in range(number)]
    one = adapted.Adapted(model, images(number), labels, None)
    assert max(model.sizes) <= 64
    assert sum(model.sizes) == number
    np.testing.assert_array_equal(one._kept, images(number).reshape(number, -1))
    assert bars == [len(model.sizes)]


@pytest.mark.parametrize("number", NUMBERS)
def test_queries_of_the_python_client(number):
    sizes = []

    def ask(pixels):
        sizes.append(len(pixels))
        places = pixels[:, 0, 0, 0]
        return np.stack([places, -places], axis=1), 2 * places

    files, probabilities, near = client._answered(ask, iter(enumerate(images(number))))
    assert sum(sizes) == number
    assert files == list(range(number))
    np.testing.assert_array_equal(probabilities, np.outer(np.arange(number), [1, -1]))
    np.testing.assert_array_equal(near, 2 * np.arange(number))
    assert max(sizes) <= 64


@pytest.mark.parametrize("side", [8, 84, 224])
def test_pictures_of_the_python_interface(side, monkeypatch):
    """One call takes as many pixels as 64 pictures of 84 x 84 have."""
    total = []

    class Bar(types.SimpleNamespace):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, number):
            total.append(number)

    monkeypatch.setattr(loaded_model.tqdm, "tqdm", lambda **named: Bar())
    pixels = np.broadcast_to(np.arange(300).reshape(-1, 1, 1, 1), [300, side, side, 3])
    parts = list(loaded_model.in_parts(pixels))
    assert np.concatenate([part[:, 0, 0, 0] for part in parts]).tolist() == list(range(300))
    assert sum(total) == 300
    assert max(map(len, parts)) * side * side <= loaded_model._PIXELS_AT_A_TIME
