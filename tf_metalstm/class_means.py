"""The mean of the features of each class, which is its prototype."""

from __future__ import annotations

import tensorflow as tf

from tf_metalstm.episode import Tensor


def class_means(features: Tensor, labels: Tensor, num_way: Tensor | int) -> Tensor:
    """Returns the mean of the features of each class, [N, D]; zeros for a class without images.

    Args:
        features: features of the images, [B, D].
        labels: labels in [0, N), [B].
        num_way: N.
    """
    of_class = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=features.dtype)  # [B, N]
    sums = tf.matmul(of_class, features, transpose_a=True)
    return tf.math.divide_no_nan(sums, tf.reduce_sum(of_class, axis=0)[:, tf.newaxis])
