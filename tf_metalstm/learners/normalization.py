"""Group and layer normalization that can be differentiated twice.

    x -> gamma * (x - mean) / sqrt(variance + epsilon) + beta

with the moments of each example, over a group of its channels or over the given axes. The layers of
Keras use `tf.nn.moments`, which does not differentiate the mean inside the variance, so the
gradient of a gradient is wrong. There are no running statistics, so queries are normalized in the
same way in meta-training and after it.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor


@keras.saving.register_keras_serializable("tf_metalstm")
class GroupNormalization(keras.layers.GroupNormalization):
    """`keras.layers.GroupNormalization` that can be differentiated twice."""

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the inputs [B, ...] normalized by the moments of each group of channels."""
        rank, shape = inputs.shape.rank, tf.shape(inputs)
        axis = self.axis % rank
        split = [self.groups, inputs.shape[axis] // self.groups]
        grouped = tf.reshape(inputs, tf.concat([shape[:axis], split, shape[axis + 1 :]], 0))
        outputs = _normalize(
            grouped,
            [i for i in range(1, rank + 1) if i != axis],
            [1] * axis + split + [1] * (rank - axis - 1),
            self,
        )
        return tf.reshape(outputs, shape)


@keras.saving.register_keras_serializable("tf_metalstm")
class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` that can be differentiated twice, without `rms_scaling`."""

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the inputs [B, ...] normalized by their moments over `axis`."""
        rank = inputs.shape.rank
        axes = [axis % rank for axis in self.axis]
        return _normalize(
            inputs, axes, [inputs.shape[i] if i in axes else 1 for i in range(rank)], self
        )


def _normalize(x: Tensor, axes: list[int], parameters_shape: list[int], layer: Any) -> Tensor:
    full = tf.float64 if x.dtype == tf.float64 else tf.float32  # moments need these bits
    x = tf.cast(x, full)
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=True)
    outputs = (x - mean) * tf.math.rsqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        outputs *= tf.cast(tf.reshape(layer.gamma, parameters_shape), full)
    if layer.beta is not None:
        outputs += tf.cast(tf.reshape(layer.beta, parameters_shape), full)
    return tf.cast(outputs, layer.compute_dtype)
