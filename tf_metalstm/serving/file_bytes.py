"""Reads numbers from the bytes of a file, inside the graph.

Positions, sizes and numbers are int64. Bytes beyond the end of a file are read as zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_metalstm.episode import Tensor


class FileBytes:
    """The bytes of a file.

    Args:
        encoded: the file, a string [].

    Attributes:
        encoded: the file.
        size: number of its bytes, int64.
    """

    def __init__(self, encoded: Tensor):
        self.encoded = encoded
        self.size = tf.cast(tf.strings.length(encoded), tf.int64)
        self._padded = tf.concat(
            [tf.io.decode_raw(encoded, tf.uint8), [tf.constant(0, tf.uint8)]], 0
        )

    def number(self, at: int | Tensor, size: int, big: bool | Tensor = False) -> Tensor:
        """Returns unsigned numbers of `size` bytes at positions of any shape."""
        # Constants are computed here, because every signature compiles this graph again.
        powers = 1 << 8 * np.arange(size, dtype=np.int64)
        weights = powers if big is False else powers[::-1] if big is True else None
        if weights is None:
            weights = tf.where(big, powers[::-1], powers)
        at = np.int64(at) if isinstance(at, int) else tf.expand_dims(at, -1)
        places = at + np.arange(size)
        digits = tf.cast(tf.gather(self._padded, tf.minimum(places, self.size)), tf.int64)
        return tf.reduce_sum(digits * weights, axis=-1)

    def has(self, at: int | Tensor, text: bytes) -> Tensor:
        """Whether the file has these bytes, at most seven, at a position."""
        return tf.equal(self.number(at, len(text), big=True), int.from_bytes(text, "big"))

    def after(self, text: bytes) -> Tensor:
        """Returns the position after the first occurrence of these bytes; 0 if there is none."""
        parts = self._split(text, 1)
        place = tf.cast(tf.strings.length(parts[0]), tf.int64) + len(text)
        return choose(tf.size(parts) > 1, place, 0)

    def count(self, text: bytes) -> Tensor:
        """Returns how often these bytes occur in the file."""
        return tf.size(self._split(text, -1)) - 1

    def _split(self, text: bytes, most: int) -> Tensor:
        return tf.raw_ops.StringSplitV2(input=[self.encoded], sep=text, maxsplit=most).values


def choose(holds: bool | Tensor, yes: Any, no: Any) -> Tensor:
    """Returns `yes` if `holds`, else `no`; both are whole numbers."""
    yes, no = (np.int64(one) if isinstance(one, int) else one for one in (yes, no))
    return tf.where(holds, yes, no)


def is_any(number: Tensor, *values: int) -> Tensor:
    """Whether a number is one of these."""
    return tf.reduce_any(number == np.array(values))
