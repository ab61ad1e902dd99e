"""Weight decay is added to Adam's update, only for kernels, in proportion to the learning rate."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.training.optimizer import ClippedAdam, make_learning_rate


def layers():
    """Makes two layers with kernels and biases, with batch norm between them; no weight is 0."""
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, name="first"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(2, name="second"),
        ],
        name="network",
    )
    for number, weight in enumerate(network.trainable_weights):
        weight.assign(tf.fill(weight.shape, 1.0 + number))
    return network


def after(gradient, steps=1, rate=0.5, **options):
    """Returns the trainable weights after updates whose gradients have one value."""
    network = layers()
    optimizer = ClippedAdam(rate, clip_norm=0.0, **options)
    optimizer.build(network.trainable_weights)
    for _ in range(steps):
        optimizer.apply([tf.fill(w.shape, gradient) for w in network.trainable_weights])
    return {w.path: w.numpy() for w in network.trainable_weights}


def test_without_a_gradient_kernels_shrink_and_nothing_else_does():
    before, now = after(0.0), after(0.0, steps=2, weight_decay=0.2)
    shrunk = {path for path in now if not np.array_equal(now[path], before[path])}
    assert shrunk == {path for path in now if path.endswith("/kernel")}
    assert len(shrunk) == 2
    for path in shrunk:  # 1 - 0.5 x 0.2, twice
        np.testing.assert_allclose(now[path], 0.81 * before[path], rtol=1e-6)


def test_it_is_beside_the_update_and_not_in_its_moments():
    """The first update of Adam equals the learning rate, whatever the size of the gradient."""
    begun, plain, decayed = after(0.0), after(3.0), after(3.0, weight_decay=0.2)
    for path, value in begun.items():
        np.testing.assert_allclose(plain[path], value - 0.5, rtol=1e-5)
        kept = 0.9 if path.endswith("/kernel") else 1.0
        np.testing.assert_allclose(decayed[path], kept * value - 0.5, rtol=1e-5)


def test_it_falls_with_the_learning_rate():
    rate = make_learning_rate(0.5, decay_steps=2)
    now, begun = after(0.0, steps=2, rate=rate, weight_decay=0.2), after(0.0)
    kept = (1 - 0.2 * 0.5) * (1 - 0.2 * 0.5 * (0.01 + 0.99 / 2))
    for path in now:
        expected = begun[path] * (kept if path.endswith("/kernel") else 1.0)
        np.testing.assert_allclose(now[path], expected, rtol=1e-6)


def test_an_lstm_has_two_kernels():
    weights = [keras.Variable([4.0], name=name) for name in ("kernel", "recurrent_kernel", "bias")]
    optimizer = ClippedAdam(0.5, clip_norm=0.0, weight_decay=0.2)
    optimizer.build(weights)
    optimizer.apply([tf.zeros([1])] * 3)
    np.testing.assert_allclose(np.concatenate(weights), [3.6, 3.6, 4.0], rtol=1e-6)


def test_weights_without_a_kernel_cannot_decay():
    optimizer = ClippedAdam(1e-3, weight_decay=0.1)
    with pytest.raises(ValueError, match=r"^weight_decay has an effect on kernels only, and none"):
        optimizer.build([keras.Variable([1.0], name="c_0")])


def test_a_copy_decays_as_much():
    copy = ClippedAdam.from_config(ClippedAdam(1e-3, weight_decay=0.1).get_config())
    assert copy.weight_decay == 0.1
    assert ClippedAdam.from_config(ClippedAdam(1e-3).get_config()).weight_decay is None
