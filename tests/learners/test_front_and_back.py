"""Tests that a network in two parts answers as the whole, and where it is divided."""

import keras
import numpy as np
import pytest

from tf_metalstm.learners.front_and_back import FrontAndBack


def residual(trained):
    """Returns a network with a layer that a sum skips, of which the named layers are trained."""
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, name="first")(inputs)
    inside = keras.layers.Dense(4, "tanh", name="inside_1")(x)
    inside = keras.layers.Dense(4, name="inside_2")(inside)
    x = keras.layers.Add(name="sum")([x, inside])
    x = keras.layers.BatchNormalization(name="norm")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="last")(x))
    for layer in model.layers:
        layer.trainable = layer.name in trained
    return model


@pytest.mark.parametrize(
    ("trained", "end"),
    [
        (["last"], "norm"),
        (["inside_2", "last"], "first"),  # the sum also takes what "first" returned
        (["inside_1"], "first"),
        (["first", "last"], None),
    ],
)
def test_the_front_ends_before_the_first_trained_layer(trained, end):
    model = residual(trained)
    model.get_layer("norm").set_weights([np.full(4, x) for x in (2.0, 1.0, 0.5, 3.0)])
    found = FrontAndBack(model)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    front = found.front(x)
    expected = x if end is None else keras.Model(model.input, model.get_layer(end).output)(x)
    np.testing.assert_allclose(front, expected, rtol=1e-6)
    answer = found.answer(found.parameters(), front)
    np.testing.assert_allclose(answer, model(x, training=False), rtol=1e-5, atol=1e-6)
    size = sum(v.numpy().size for v in model.trainable_variables)
    assert found.parameters().shape == (size,) == (found.back.num_parameters,)


def test_the_back_takes_other_parameters():
    model = residual(["last"])
    found = FrontAndBack(model)
    x = found.front(np.ones((1, 3), "float32"))
    before = model.get_layer("last").get_weights()
    doubled = found.answer(2.0 * found.parameters(), x)
    np.testing.assert_array_equal(model.get_layer("last").get_weights()[0], before[0])
    model.get_layer("last").set_weights([2.0 * each for each in before])
    np.testing.assert_allclose(doubled, model(np.ones((1, 3), "float32")), rtol=1e-6)
