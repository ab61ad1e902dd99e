"""What methods that compare features share: labelled features, cosines, the nearest of a class."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tf_metalstm.episode import Tensor


class LabelledFeatures(NamedTuple):
    """What `adapt` keeps of a support set.

    features: of each image, [B, D].
    labels: of each image, [B].
    """

    features: Tensor
    labels: Tensor


def cosines(support: Tensor, queries: Tensor) -> Tensor:
    """Returns the cosine of each query with each support image, [B, D] x [S, D] -> [B, S].

    Args:
        support: features of length 1, [S, D].
        queries: features of length 1, [B, D].
    """
    return tf.matmul(queries, support, transpose_b=True)


def nearest(similarities: Tensor, labels: Tensor, num_way: int) -> Tensor:
    """Returns for each class the similarity of its nearest support image, [B, N].

    Args:
        similarities: of B queries with S support images, [B, S].
        labels: of the support images, in [0, N), [S].
        num_way: N. A class without any image has the lowest number there is.
    """
    lowest = similarities.dtype.min
    is_of_class = tf.equal(tf.range(num_way)[:, tf.newaxis], tf.cast(labels, tf.int32))  # [N, S]
    return tf.reduce_max(tf.where(is_of_class, similarities[:, tf.newaxis], lowest), axis=-1)
