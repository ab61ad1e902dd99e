"""Clipping: by value, by global norm, not at all."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.training.optimizer import ClippedAdam


def first_moment(**limits):
    """What Adam saw of the gradient (3, -40): its first moment after one step, over 1 - beta_1."""
    optimizer = ClippedAdam(1e-3, **limits)
    weight = keras.Variable([0.0, 0.0])
    optimizer.build([weight])
    optimizer.apply([tf.constant([3.0, -40.0])], [weight])
    (moment,) = (v for v in optimizer.variables if "momentum" in v.path)
    return moment.numpy() / 0.1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"clip_norm": 0.0}, [3.0, -40.0]),
        ({"clip_norm": 0.0, "clip_value": 10.0}, [3.0, -10.0]),
        ({"clip_norm": 1.0}, np.array([3.0, -40.0]) / np.hypot(3.0, 40.0)),
        ({"clip_norm": 1.0, "clip_value": 4.0}, [0.6, -0.8]),
    ],
)
def test_what_is_left_of_a_gradient(limits, expected):
    np.testing.assert_allclose(first_moment(**limits), expected, rtol=1e-5)


@pytest.mark.parametrize("flag", ["clip_norm", "clip_value"])
def test_a_negative_limit_is_refused(flag):
    with pytest.raises(ValueError, match=f"--{flag} must be positive, or 0 for no limit"):
        ClippedAdam(**{flag: -1.0})
