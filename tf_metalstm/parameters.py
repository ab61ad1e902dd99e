"""The blocks of the flat parameter vector theta [P]; each block is one tensor.

Most learners have a fixed number of parameters. A learner that accepts any number of classes has a
row of its last layer for each class. The length of its theta depends on the episode:

    theta = fixed blocks, row of class 0, row of class 1, ..., row of class N - 1

Its blocks are the fixed blocks and the blocks of one row, which are marked `per_class`. Values that
a rule keeps for each coordinate or each tensor belong to these blocks; `rules/places.py` repeats
them for each class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class ParameterBlock(NamedTuple):
    """One tensor in the flat vector.

    name: the path of the tensor in the learner, as "conv_1/kernel".
    shape: shape of the tensor.
    start: index of its first coordinate in theta.
    size: number of its coordinates.
    per_class: whether theta has the block once for each class of the episode; these blocks are
        the last ones.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    size: int
    per_class: bool = False

    @property
    def layer(self) -> str:
        """The layer that the tensor belongs to, as "conv_1"; "" if the name has no layer."""
        return self.name.rpartition("/")[0]


Blocks = tuple[ParameterBlock, ...]


def blocks_of(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> Blocks:
    """Returns the blocks of tensors that follow one another in theta.

    >>> blocks_of([("linear/kernel", (3, 2)), ("linear/bias", (2,))])[1]
    ParameterBlock(name='linear/bias', shape=(2,), start=6, size=2, per_class=False)
    """
    blocks, start = [], 0
    for name, shape in shapes:
        block = ParameterBlock(name, tuple(shape), start, math.prod(shape))
        blocks.append(block)
        start += block.size
    return tuple(blocks)


def num_parameters(blocks: Blocks) -> int:
    """Returns P, the number of coordinates of theta; blocks per class count once."""
    return sum(block.size for block in blocks)


def is_length_of(length: int, blocks: Blocks) -> bool:
    """Returns whether theta of these blocks may have a length, for any number of classes."""
    fixed, size = num_fixed(blocks), num_parameters(blocks)
    if fixed == size:
        return length == size
    return length > fixed and (length - fixed) % (size - fixed) == 0


def num_fixed(blocks: Blocks) -> int:
    """Returns the number of coordinates in the blocks that theta has only once."""
    return sum(block.size for block in blocks if not block.per_class)
