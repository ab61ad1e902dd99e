"""Batch normalization by TensorFlow's fused kernel.

Keras 3 computes moments and normalizes in separate operations; the fused kernel
makes a meta-update clearly faster. What differs is small and on purpose: the
variance that goes into the running statistics is the unbiased one (divided by
n - 1), which is also what the authors' Torch code collects.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor


@keras.saving.register_keras_serializable("tf_metalstm")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` for float32 images [B, h, w, c].

    With any other type (float64 in tests) it is the Keras layer unchanged.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        if self.compute_dtype != "float32":
            return super().call(inputs, training=training, mask=mask)
        normalize = tf.compat.v1.nn.fused_batch_norm
        gamma = tf.convert_to_tensor(self.gamma)
        beta = tf.convert_to_tensor(self.beta)
        if not training:
            outputs, _, _ = normalize(
                inputs,
                gamma,
                beta,
                mean=tf.convert_to_tensor(self.moving_mean),
                variance=tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
                is_training=False,
            )
            return outputs
        outputs, mean, variance = normalize(inputs, gamma, beta, epsilon=self.epsilon)
        for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(self.momentum * running + (1.0 - self.momentum) * batch)
        return outputs
