"""Batch normalization that may be differentiated twice, by TensorFlow's fused kernel for images.

    x -> gamma * (x - mean) / sqrt(variance + epsilon) + beta

The layer of Keras takes its moments from `tf.nn.moments`, which keeps the mean inside the
variance from being differentiated. That does no harm to a gradient, but the gradient of a
gradient, which MAML needs, comes out wrong. And it computes moments and normalizes in
separate operations, where the fused kernel makes a meta-update clearly faster.

What differs besides: the variance that goes into the running statistics is the unbiased one
(divided by n - 1), which is also what the authors' Torch code collects.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor


@keras.saving.register_keras_serializable("tf_metalstm")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over all axes but the last, of [B, ..., c]."""

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """Returns [B, ..., c] normalized by its own moments in training, else by running ones."""
        del mask
        inputs = tf.cast(inputs, self.compute_dtype)
        is_fused = self.variable_dtype == "float32" and inputs.shape.rank == 4
        normalize: Any = _fused if is_fused else _plain
        channels = [inputs.shape[-1]]
        gamma = self.gamma if self.scale else tf.ones(channels, self.variable_dtype)
        beta = self.beta if self.center else tf.zeros(channels, self.variable_dtype)
        running = (self.moving_mean, self.moving_variance)
        parameters = [tf.convert_to_tensor(x) for x in (gamma, beta)]
        if not training:
            moments = [tf.convert_to_tensor(x) for x in running]
            return normalize(inputs, *parameters, self.epsilon, moments)[0]
        outputs, *moments = normalize(inputs, *parameters, self.epsilon, None)
        for statistic, batch in zip(running, moments, strict=True):
            statistic.assign(self.momentum * statistic + (1.0 - self.momentum) * batch)
        return outputs


def _fused(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, moments: Any) -> Any:
    """Returns the outputs, the mean and the unbiased variance, of images in at most float32."""
    if moments is None:
        return tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=epsilon)
    return tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, *moments, epsilon=epsilon, is_training=False
    )


def _plain(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, moments: Any) -> Any:
    """Returns the same, of any shape and type."""
    given, x = x.dtype, tf.cast(x, gamma.dtype)  # moments of few bits would be wrong ones
    if moments is None:
        axes = list(range(x.shape.rank - 1))
        mean = tf.reduce_mean(x, axes)
        variance = tf.reduce_mean(tf.square(x - mean), axes)
        count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
        unbiased = variance * count / tf.maximum(count - 1.0, 1.0)
    else:
        mean, variance = moments
        unbiased = variance
    outputs = (x - mean) * tf.math.rsqrt(variance + epsilon) * gamma + beta
    return tf.cast(outputs, given), mean, unbiased
