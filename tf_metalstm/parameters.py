"""The flat parameter vector theta [P] as the tensors that it is made of."""

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
    """

    name: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def layer(self) -> str:
        """The layer that the tensor belongs to, as "conv_1"; "" where the name says none."""
        return self.name.rpartition("/")[0]


Blocks = tuple[ParameterBlock, ...]


def blocks_of(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> Blocks:
    """Returns the blocks of tensors that lie one after the other.

    >>> blocks_of([("linear/kernel", (3, 2)), ("linear/bias", (2,))])[1]
    ParameterBlock(name='linear/bias', shape=(2,), start=6, size=2)
    """
    blocks, start = [], 0
    for name, shape in shapes:
        block = ParameterBlock(name, tuple(shape), start, math.prod(shape))
        blocks.append(block)
        start += block.size
    return tuple(blocks)


def num_parameters(blocks: Blocks) -> int:
    """Returns P."""
    return sum(block.size for block in blocks)
