"""Where each coordinate of theta lies: numbers kept for blocks, laid out as theta is.

theta of an episode may have more rows in its last layer than the blocks say
(`tf_metalstm.parameters`). Then what belongs to the one row of the blocks belongs to each of them.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.parameters import Blocks, num_fixed, num_parameters


def of_coordinates(values: Tensor, blocks: Blocks, theta: Tensor) -> Tensor:
    """Returns values of the coordinates of the blocks as values of the coordinates of theta.

    Args:
        values: of each coordinate of the blocks, [num_parameters(blocks), ...].
        blocks: that theta is made of.
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
    """Returns values of each block as values of the coordinates of theta, [P, ...].

    Args:
        values: of each block, [len(blocks), ...].
        blocks: that theta is made of.
        theta: [P].
    """
    numbers = np.repeat(np.arange(len(blocks)), [block.size for block in blocks])
    return of_coordinates(tf.gather(values, numbers), blocks, theta)


def row_of(updates: Tensor, num_updates: int) -> Tensor:
    """Returns which row belongs to the update that comes after so many, from 0 on."""
    return tf.minimum(tf.cast(updates, tf.int32), num_updates - 1)
