"""The flat parameter vector theta [P] as the tensors that it is made of.

Most learners have a fixed number of parameters. One that takes any number of classes has a row of
its last layer for each of them, and its theta is as long as the episode needs:

    theta = fixed blocks, row of class 0, row of class 1, ..., row of class N - 1

Its blocks are the fixed ones and those of one row, marked `per_class`. What a rule keeps for each
coordinate or each tensor it keeps for these blocks; `rules/places.py` repeats it for each class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class ParameterBlock(NamedTuple):
    """One tensor as a stretch of the flat vector.

    name: the path of the tensor in the learner, as "conv_1/kernel".
    shape: its shape.
    start: index of its first coordinate.
    size: how many coordinates it has.
    per_class: theta has it once for each class of the episode; these are the last blocks.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    size: int
    per_class: bool = False

    @property
    def layer(self) -> str:
        """The layer that the tensor belongs to, as "conv_1"; "" where the name says none."""
        return self.name.rpartition("/")[0]


Blocks = tuple[ParameterBlock, ...]


def blocks_of(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> Blocks:
    """Returns the blocks of tensors that lie one after the other.

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
    """Returns P; of what there is once for each class, one row counts."""
    return sum(block.size for block in blocks)


def num_fixed(blocks: Blocks) -> int:
    """Returns how many coordinates of theta do not depend on the number of classes."""
    return sum(block.size for block in blocks if not block.per_class)
