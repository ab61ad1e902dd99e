"""Lays out numbers that belong to blocks as theta is laid out.

The theta of an episode may have more rows in its last layer than the blocks
(`tf_metalstm.parameters`). The numbers of the one row in the blocks then belong to each of them.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.parameters import Blocks, num_fixed, num_parameters


def of_coordinates(values: Tensor, blocks: Blocks, theta: Tensor) -> Tensor:
    """Returns the value of each coordinate of theta, from the values of the blocks.

    Args:
        values: a value for each coordinate of the blocks, [num_parameters(blocks), ...].
        blocks: the blocks of theta.
        theta: [P].

    Returns:
        [P, ...], the values of the row repeated for each class.
    """
    fixed, size = num_fixed(blocks), num_parameters(blocks)
    if fixed == size:
        return values
    length = tf.shape(theta)[0] if theta.shape[0] is None else theta.shape[0]
    num_way = (length - fixed) // (size - fixed)
    rows = tf.tile(values[fixed:], [num_way] + [1] * (len(values.shape) - 1))
    return tf.concat([values[:fixed], rows], axis=0)


def of_blocks(values: Tensor, blocks: Blocks, theta: Tensor) -> Tensor:
    """Repeats the value of each block for its coordinates in theta, [P, ...].

    Args:
        values: a value for each block, [len(blocks), ...].
        blocks: the blocks of theta.
        theta: [P].
    """
    numbers = np.repeat(np.arange(len(blocks)), [block.size for block in blocks])
    return of_coordinates(tf.gather(values, numbers), blocks, theta)


def means_of_blocks(values: Tensor, blocks: Blocks) -> Tensor:
    """Returns the mean over the coordinates of each block, also over its rows, [len(blocks)].

    Args:
        values: a number for each coordinate of theta, [P].
        blocks: the blocks of theta.
    """
    fixed, size = num_fixed(blocks), num_parameters(blocks)
    if fixed < size:
        by_row = tf.reshape(values[fixed:], [-1, size - fixed])
        values = tf.concat([values[:fixed], tf.reduce_mean(by_row, axis=0)], axis=0)
    parts = tf.split(values, [block.size for block in blocks])
    return tf.stack([tf.reduce_mean(part) for part in parts])


def row_of(updates: Tensor, num_updates: int) -> Tensor:
    """Returns the row, from 0 on, for the update that comes after `updates` updates."""
    return tf.minimum(tf.cast(updates, tf.int32), num_updates - 1)
