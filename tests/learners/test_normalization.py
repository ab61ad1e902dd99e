"""Group and layer normalization equal Keras's layers, but can be differentiated twice."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.learners.normalization import GroupNormalization, LayerNormalization

L = keras.layers
PAIRS = [
    (L.GroupNormalization, GroupNormalization, {"groups": 2}),
    (L.GroupNormalization, GroupNormalization, {"groups": -1, "epsilon": 1e-2}),
    (L.GroupNormalization, GroupNormalization, {"groups": 2, "axis": 1, "center": False}),
    (L.LayerNormalization, LayerNormalization, {}),
    (L.LayerNormalization, LayerNormalization, {"axis": (1, 3), "epsilon": 1e-2}),
    (L.LayerNormalization, LayerNormalization, {"axis": 2, "scale": False}),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("theirs", "ours", "options"), PAIRS)
def test_the_values_are_those_of_keras(theirs, ours, options, dtype):
    x = tf.constant(np.random.default_rng(0).normal(2.0, 3.0, (3, 4, 5, 6)), "float32")
    layers = [kind(dtype=dtype, **options) for kind in (theirs, ours)]
    generator = np.random.default_rng(1)
    for layer in layers:
        layer.build((None, 4, 5, 6))
    weights = [generator.uniform(0.5, 2.0, w.shape) for w in layers[0].get_weights()]
    answers = []
    for layer in layers:
        layer.set_weights(weights)
        answers.append(tf.function(layer)(x))
    assert answers[0].dtype == answers[1].dtype == layers[1].compute_dtype
    one, other = (tf.cast(answer, "float64") for answer in answers)
    tolerance = 0.05 if dtype == "mixed_bfloat16" else 1e-4
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ours", [GroupNormalization(2), LayerNormalization(axis=(1, 2))])
def test_a_file_brings_them_back(ours, tmp_path):
    model = keras.Sequential([L.Input((4, 6)), ours, L.Flatten(), L.Dense(2)])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[0]) is type(ours)
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")
    np.testing.assert_allclose(again(x), model(x), rtol=1e-6)
