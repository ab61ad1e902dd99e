"""Batch norm blended with instance norm by a learned share: TaskNorm-I.

Bronskill, Gordon, Requeima, Nowozin & Turner, "TaskNorm: Rethinking Batch Normalization for
Meta-Learning", ICML 2020, section 4.2. (m, v) are the moments of a batch and (m_+, v_+) those of
one image. For each channel

    mean     = a m + (1 - a) m_+
    variance = a (v + (m - mean)^2) + (1 - a) (v_+ + (m_+ - mean)^2)

In a support pass the batch is the support set. For a query (m, v) are the running statistics of the
support passes. So each image also counts by itself, which helps if the batch has only five images.
The share a = sigmoid(blend) is learned for each layer. In the paper it also depends on the number
of support images. A layer here does not know this number when it sees a query.

    paper       code                    shape
    m, v        batch moments           [c]
    m_+, v_+    moments of an image     [B, 1, 1, c]
    alpha       sigmoid(blend)          []
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.learners.batch_normalization import BatchNormalization, moments_of


@keras.saving.register_keras_serializable("tf_metalstm")
class BlendedNormalization(BatchNormalization):
    """`BatchNormalization` of images [B, h, w, c], blended with the moments of each image."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights of batch norm and the share, which starts at one half."""
        if len(input_shape) != 4:
            raise ValueError(
                f"BlendedNormalization takes images [B, h, w, c], got {tuple(input_shape)}: use "
                "BatchNormalization."
            )
        super().build(input_shape)
        self.blend = self.add_weight(shape=(), initializer="zeros", name="blend")

    def _normalize(self, inputs: Tensor, weights: Tensor | None, training: bool | None) -> Tensor:
        dtype = inputs.dtype
        full = tf.float64 if self.variable_dtype == "float64" else tf.float32
        x = tf.cast(inputs, full)
        mean, variance = (tf.convert_to_tensor(x) for x in (self.moving_mean, self.moving_variance))
        if training and self.trainable:
            mean, variance, unbiased = moments_of(x, weights)
            self.move_statistics(mean, unbiased)
        own_mean = tf.reduce_mean(x, [1, 2], keepdims=True)
        own_variance = tf.reduce_mean(tf.square(x - own_mean), [1, 2], keepdims=True)
        share = tf.sigmoid(tf.cast(self.blend, full))  # Keras gives weights in the smaller type
        blended = share * mean + (1.0 - share) * own_mean
        spread = share * (variance + tf.square(mean - blended))
        spread += (1.0 - share) * (own_variance + tf.square(own_mean - blended))
        outputs = (x - blended) * tf.math.rsqrt(spread + self.epsilon)
        for parameter, use in ((self.gamma, tf.multiply), (self.beta, tf.add)):
            outputs = outputs if parameter is None else use(outputs, tf.cast(parameter, full))
        return tf.cast(outputs, dtype)
