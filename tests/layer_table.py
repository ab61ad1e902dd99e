"""A table for tests: Keras's layers, and whether they can be differentiated twice.

Each row has a function that makes the layer, the shape of one input, and the verdict. "right": the
second derivative is right up to rounding; "part": a part of it is missing, without an error;
"none": TensorFlow raises an error.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

L = keras.layers
VECTOR, SEQUENCE, IMAGE, VOLUME = (6,), (4, 3), (5, 5, 4), (4, 4, 4, 1)
BATCH = 3


class Row(NamedTuple):
    make: Callable[..., keras.Layer]
    shape: tuple[int, ...]
    verdict: str = "right"
    dtype: str = "float64"


@keras.saving.register_keras_serializable("tests")
class Shift(keras.layers.Layer):
    """Adds a parameter to each number of a batch. Its gradient is that of the inputs."""

    def build(self, shape):
        self.shift = self.add_weight(shape=(BATCH, *shape[1:]), initializer="zeros", name="shift")

    def call(self, inputs):
        return inputs + self.shift


def layer(kind, **options):
    return lambda dtype: kind(dtype=dtype, **options)


def on_itself(kind, *, pair=False, **options):
    """Makes a layer of two inputs into one of one input x, and gives it x and tanh(x)."""

    @keras.saving.register_keras_serializable("tests")
    class OnItself(keras.layers.Layer):
        def __init__(self, **given):
            super().__init__(**given)
            self.inner = kind(dtype=self.dtype, **options)

        def build(self, shape):
            self.inner.build(*([shape, shape] if pair else [[shape, shape]]))

        def call(self, inputs):
            both = inputs, tf.tanh(inputs)
            return self.inner(*both) if pair else self.inner(list(both))

    return lambda dtype: OnItself(dtype=dtype)


# fmt: off
ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh",
    "leaky_relu", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid",
    "silu", "soft_shrink", "softmax", "softplus", "sparse_plus", "sparse_sigmoid", "sparsemax",
    "squareplus", "tanh", "tanh_shrink",
)
# fmt: on

RIGHT = {
    **{name: Row(layer(L.Activation, activation=name), VECTOR) for name in ACTIVATIONS},
    "PReLU": Row(layer(L.PReLU), VECTOR),
    "Dense": Row(layer(L.Dense, units=3, activation="tanh"), VECTOR),
    "EinsumDense": Row(layer(L.EinsumDense, equation="abc,cd->abd", output_shape=(4, 2)), SEQUENCE),
    "Conv1D": Row(layer(L.Conv1D, filters=2, kernel_size=2), SEQUENCE),
    "Conv2D": Row(layer(L.Conv2D, filters=2, kernel_size=3, padding="same"), IMAGE),
    "Conv2D, strides, groups": Row(
        layer(L.Conv2D, filters=4, kernel_size=2, strides=2, groups=2), IMAGE
    ),
    "Conv2D, dilated": Row(layer(L.Conv2D, filters=2, kernel_size=2, dilation_rate=2), IMAGE),
    "Conv2DTranspose": Row(layer(L.Conv2DTranspose, filters=2, kernel_size=2, strides=2), IMAGE),
    "DepthwiseConv2D": Row(layer(L.DepthwiseConv2D, kernel_size=3), IMAGE),
    "SeparableConv2D": Row(layer(L.SeparableConv2D, filters=2, kernel_size=3), IMAGE),
    "Conv3D": Row(layer(L.Conv3D, filters=2, kernel_size=2), VOLUME),
    "MaxPooling1D": Row(layer(L.MaxPooling1D), SEQUENCE),
    "MaxPooling2D": Row(layer(L.MaxPooling2D), IMAGE),
    "MaxPooling2D, overlapping": Row(layer(L.MaxPooling2D, pool_size=3, strides=1), IMAGE),
    "MaxPooling3D": Row(layer(L.MaxPooling3D), VOLUME, dtype="float32"),
    "AveragePooling2D": Row(layer(L.AveragePooling2D, pool_size=2), IMAGE),
    "AveragePooling3D": Row(layer(L.AveragePooling3D, pool_size=2), VOLUME, dtype="float32"),
    "GlobalMaxPooling2D": Row(layer(L.GlobalMaxPooling2D), IMAGE),
    "GlobalAveragePooling2D": Row(layer(L.GlobalAveragePooling2D), IMAGE),
    "AdaptiveMaxPooling2D": Row(layer(L.AdaptiveMaxPooling2D, output_size=2), IMAGE),
    "AdaptiveAveragePooling2D": Row(layer(L.AdaptiveAveragePooling2D, output_size=2), IMAGE),
    "LayerNormalization, rms_scaling": Row(layer(L.LayerNormalization, rms_scaling=True), IMAGE),
    "RMSNormalization": Row(layer(L.RMSNormalization), IMAGE),
    "UnitNormalization": Row(layer(L.UnitNormalization), IMAGE),
    "LSTM": Row(layer(L.LSTM, units=2), SEQUENCE),
    "GRU": Row(layer(L.GRU, units=2), SEQUENCE),
    "SimpleRNN": Row(layer(L.SimpleRNN, units=2), SEQUENCE),
    "ConvLSTM1D": Row(layer(L.ConvLSTM1D, filters=2, kernel_size=2), (2, 3, 2)),
    "Bidirectional": Row(
        lambda dtype: L.Bidirectional(L.GRU(2, dtype=dtype), dtype=dtype), SEQUENCE
    ),
    "TimeDistributed": Row(
        lambda dtype: L.TimeDistributed(L.Dense(2, dtype=dtype), dtype=dtype), SEQUENCE
    ),
    "Attention": Row(on_itself(L.Attention, use_scale=True), SEQUENCE),
    "AdditiveAttention": Row(on_itself(L.AdditiveAttention), SEQUENCE),
    "MultiHeadAttention": Row(
        on_itself(L.MultiHeadAttention, pair=True, num_heads=2, key_dim=2), SEQUENCE
    ),
    "GroupQueryAttention": Row(
        on_itself(
            L.GroupQueryAttention, pair=True, head_dim=2, num_query_heads=2, num_key_value_heads=1
        ),
        SEQUENCE,
    ),
    "Dot": Row(on_itself(L.Dot, axes=1, normalize=True), VECTOR),
    "Maximum": Row(on_itself(L.Maximum), VECTOR),
    "UpSampling2D, nearest": Row(layer(L.UpSampling2D), IMAGE),
    "STFTSpectrogram": Row(
        layer(L.STFTSpectrogram, frame_length=8, frame_step=4, fft_length=8), (16, 1)
    ),
}
# Our layers replace these with second order; batch normalization is always replaced.
REPLACED = {
    "BatchNormalization": Row(layer(L.BatchNormalization), VECTOR, "part"),
    "BatchNormalization, images": Row(layer(L.BatchNormalization), IMAGE, "part"),
    "BatchNormalization, axis 1": Row(layer(L.BatchNormalization, axis=1), IMAGE, "part"),
    "GroupNormalization": Row(layer(L.GroupNormalization, groups=2), IMAGE, "part"),
    "GroupNormalization, axis 1": Row(
        layer(L.GroupNormalization, groups=2, axis=1), (4, 3, 2), "part"
    ),
    "GroupNormalization, vectors": Row(layer(L.GroupNormalization, groups=2), VECTOR, "part"),
    "LayerNormalization": Row(layer(L.LayerNormalization), IMAGE, "part"),
    "LayerNormalization, two axes": Row(layer(L.LayerNormalization, axis=(1, 3)), IMAGE, "part"),
}
# These have no replacement.
WRONG = {
    "BatchNormalization, renorm": Row(layer(L.BatchNormalization, renorm=True), VECTOR, "part"),
    "SpectralNormalization": Row(
        lambda dtype: L.SpectralNormalization(L.Dense(2, dtype=dtype), dtype=dtype), VECTOR, "part"
    ),
    "UpSampling2D, bilinear": Row(
        layer(L.UpSampling2D, interpolation="bilinear"), IMAGE, "part", "float32"
    ),
    "UpSampling2D, bicubic": Row(
        layer(L.UpSampling2D, interpolation="bicubic"), IMAGE, "none", "float32"
    ),
    "UpSampling2D, lanczos3": Row(
        layer(L.UpSampling2D, interpolation="lanczos3"), IMAGE, "none", "float32"
    ),
    "Resizing, bilinear": Row(layer(L.Resizing, height=4, width=3), IMAGE, "part", "float32"),
    "Resizing, nearest": Row(
        layer(L.Resizing, height=4, width=3, interpolation="nearest"), IMAGE, "none", "float32"
    ),
    "Resizing, antialiased": Row(
        layer(L.Resizing, height=4, width=3, antialias=True), IMAGE, "none", "float32"
    ),
    "softsign": Row(layer(L.Activation, activation="softsign"), VECTOR, "none"),
}
TABLE = RIGHT | REPLACED | WRONG


def model_of(row):
    """Returns a model with random parameters: a parameter for each number, then the layer."""
    inputs = keras.Input(row.shape, batch_size=BATCH, dtype=row.dtype)
    outputs = row.make(row.dtype)(Shift(dtype=row.dtype)(inputs))
    model = keras.Model(inputs, L.Flatten(dtype=row.dtype)(outputs))
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(variable + generator.normal(0.0, 0.3, variable.shape))
    return model


def second_order_error(model):
    """Returns the relative error of the second derivative, compared with central differences.

    Both are taken along one random direction, so that all pairs of parameters count.
    """
    generator, dtype = np.random.default_rng(1), model.outputs[0].dtype
    inputs = tf.constant(generator.normal(0.3, 1.0, model.inputs[0].shape), dtype)
    weights = tf.constant(generator.normal(size=model.outputs[0].shape), dtype)
    start = [tf.convert_to_tensor(variable) for variable in model.trainable_variables]
    direction = [tf.constant(generator.normal(size=x.shape), dtype) for x in start]
    others = [tf.convert_to_tensor(variable) for variable in model.non_trainable_variables]

    def gradient(parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            outputs, _ = model.stateless_call(parameters, others, inputs, training=True)
            loss = tf.reduce_sum(weights * tf.tanh(outputs))
        return tape.gradient(loss, parameters)

    def moved(step):
        along = zip(start, direction, strict=True)
        return flat(gradient([x + step * towards for x, towards in along]))

    with tf.GradientTape() as tape:
        tape.watch(start)
        slope = tf.reduce_sum(flat(direction) * flat(gradient(start)))
    found = tape.gradient(slope, start, unconnected_gradients="zero")
    step = 1e-5 if dtype == "float64" else 3e-3
    expected = (moved(step) - moved(-step)) / (2.0 * step)
    return float(tf.reduce_max(tf.abs(flat(found) - expected)) / tf.reduce_max(tf.abs(expected)))


def flat(tensors):
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
