"""Functions for methods that compare features: cosines, nearest images, features in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tf_metalstm.episode import Tensor

# Images in one pass of the network, if their number is unknown when the graph is built.
_CHUNK = 128


class LabelledFeatures(NamedTuple):
    """What `adapt` returns for a support set.

    features: features of each image, [B, D].
    labels: label of each image, [B].
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
        similarities: similarities of B queries with S support images, [B, S].
        labels: labels of the support images, in [0, N), [S].
        num_way: N. A class without images gets the lowest possible number.
    """
    lowest = similarities.dtype.min
    is_of_class = tf.equal(tf.range(num_way)[:, tf.newaxis], tf.cast(labels, tf.int32))  # [N, S]
    return tf.reduce_max(tf.where(is_of_class, similarities[:, tf.newaxis], lowest), axis=-1)


def in_chunks(
    features: Callable[[Tensor], Tensor],
    images: Tensor,
    feature_shape: tuple[int, ...],
    dtype: str,
) -> Tensor:
    """Returns the features of images, [B, ...], in parts if B is unknown when the graph is built.

    That is so in an exported model. A support set of thousands of images then takes little memory.

    Args:
        features: function of images [b, ...] that returns features [b, ...]; the features of an
            image do not depend on the other images.
        images: [B, ...], B at least 1.
        feature_shape: shape of the features of one image.
        dtype: type of the features.
    """
    if images.shape[0] is not None:
        return features(images)
    number = tf.shape(images)[0]
    chunks = (number + _CHUNK - 1) // _CHUNK
    shape = [None, *feature_shape]
    done = tf.TensorArray(dtype, chunks, infer_shape=False, element_shape=shape)

    def add(i: Tensor, done: tf.TensorArray) -> tuple[Tensor, tf.TensorArray]:
        return i + 1, done.write(i, features(images[i * _CHUNK : (i + 1) * _CHUNK]))

    _, done = tf.while_loop(lambda i, _: i < chunks, add, (0, done), parallel_iterations=1)
    return tf.ensure_shape(done.concat(), shape)
