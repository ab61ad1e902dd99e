"""Batch normalization that can be differentiated twice, with TensorFlow's fused kernel for images.

    x -> gamma * (x - mean) / sqrt(variance + epsilon) + beta

The layer of Keras uses `tf.nn.moments`, which does not differentiate the mean inside the
variance. The gradient is still right, but the gradient of a gradient, which MAML needs, is wrong.
Keras also computes moments and normalizes in separate operations; with the fused kernel a
meta-update is clearly faster.

There is one more difference: the running statistics get the unbiased variance (divided by n - 1).
The authors' Torch code does the same.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor

# TensorFlow's fused kernel silently replaces a smaller epsilon by this one.
_SMALLEST_FUSED_EPSILON = 1.001e-5


@keras.saving.register_keras_serializable("tf_metalstm")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` without `renorm` and `synchronized`.

    If it is not `trainable`, it normalizes by its running statistics and does not change them, as
    the layer of Keras does.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """Returns the normalized inputs: by their own moments in training, else by running ones.

        Args:
            inputs: [B, ...], the channels at `axis`.
            training: whether to normalize by the moments of `inputs`.
            mask: booleans of the shape of `inputs` without its last axis; inputs whose mask is
                False do not count in the moments.
        """
        inputs = tf.cast(inputs, self.compute_dtype)
        weights = None
        if mask is not None:
            weights = tf.broadcast_to(tf.cast(mask, inputs.dtype)[..., None], tf.shape(inputs))
        if self.axis % inputs.shape.rank == inputs.shape.rank - 1:
            return self._normalize(inputs, weights, training)
        order = [i for i in range(inputs.shape.rank) if i != self.axis % inputs.shape.rank]
        order.append(self.axis % inputs.shape.rank)
        if weights is not None:
            weights = tf.transpose(weights, order)
        outputs = self._normalize(tf.transpose(inputs, order), weights, training)
        return tf.transpose(outputs, sorted(range(len(order)), key=order.__getitem__))

    def _normalize(self, inputs: Tensor, weights: Tensor | None, training: bool | None) -> Tensor:
        """Returns the normalized inputs [B, ..., c]; training updates the running statistics."""
        is_fused = (
            self.variable_dtype == "float32"
            and inputs.shape.rank == 4
            and weights is None
            and self.epsilon > _SMALLEST_FUSED_EPSILON
        )
        normalize: Any = _fused if is_fused else _plain
        channels = [inputs.shape[-1]]
        gamma = self.gamma if self.scale else tf.ones(channels, self.variable_dtype)
        beta = self.beta if self.center else tf.zeros(channels, self.variable_dtype)
        running = (self.moving_mean, self.moving_variance)
        parameters = [tf.convert_to_tensor(x) for x in (gamma, beta)]
        if not (training and self.trainable):
            moments = [tf.convert_to_tensor(x) for x in running]
            return normalize(inputs, *parameters, self.epsilon, moments, weights)[0]
        outputs, mean, unbiased = normalize(inputs, *parameters, self.epsilon, None, weights)
        self.move_statistics(mean, unbiased)
        return outputs

    def move_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics towards the moments of a batch, each [c]."""
        for statistic, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            batch = tf.cast(batch, statistic.dtype)
            statistic.assign(self.momentum * statistic + (1.0 - self.momentum) * batch)


def _fused(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, moments: Any, weights: None
) -> Any:
    """Returns outputs, mean and unbiased variance of images in float32 or a smaller type."""
    del weights
    if moments is None:
        return tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=epsilon)
    return tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, *moments, epsilon=epsilon, is_training=False
    )


def _plain(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float, moments: Any, weights: Tensor | None
) -> Any:
    """Returns the same for any shape and type; rows of weight 0 do not count."""
    dtype = x.dtype
    full = tf.float64 if gamma.dtype == tf.float64 else tf.float32  # moments need these bits
    x, gamma, beta = (tf.cast(each, full) for each in (x, gamma, beta))
    if moments is None:
        mean, variance, unbiased = moments_of(x, weights)
    else:
        mean, variance = (tf.cast(each, full) for each in moments)
        unbiased = variance
    outputs = (x - mean) * tf.math.rsqrt(variance + epsilon) * gamma + beta
    return tf.cast(outputs, dtype), mean, unbiased


def moments_of(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the mean, the variance and the unbiased variance of [B, ..., c], each [c]."""
    axes = list(range(x.shape.rank - 1))
    if weights is None:
        count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
        mean = tf.reduce_mean(x, axes)
        variance = tf.reduce_mean(tf.square(x - mean), axes)
    else:
        weights = tf.cast(weights, x.dtype)
        count = tf.maximum(tf.reduce_sum(weights, axes), 1.0)
        mean = tf.reduce_sum(weights * x, axes) / count
        variance = tf.reduce_sum(weights * tf.square(x - mean), axes) / count
    return mean, variance, variance * count / tf.maximum(count - 1.0, 1.0)
