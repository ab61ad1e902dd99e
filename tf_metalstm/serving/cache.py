"""Stores results for images, such as features, so that the same images are computed once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_LEAST = 256  # bytes; a smaller entry counts as this many


class Cache:
    """Values of images, found by the bytes of the image; the oldest values are dropped.

    Args:
        limit: bytes of all values together.
    """

    def __init__(self, limit: int = 2**27) -> None:
        self.limit = limit
        self._values: OrderedDict[bytes, Any] = OrderedDict()
        self._bytes = 0

    def of(self, images: np.ndarray, make: Callable[[np.ndarray], Sequence[Any]]) -> list[Any]:
        """Returns the value of each image.

        Args:
            images: [B, h, w, c].
            make: computes the values of images [b, h, w, c] that are not stored.
        """
        keys = [self._key(image) for image in images]
        values = {key: self._values[key] for key in keys if key in self._values}
        new = {key: place for place, key in enumerate(keys) if key not in values}
        if new:
            computed = make(images[list(new.values())])
            values.update(zip(new, computed, strict=True))
        for key in keys:
            self._keep(key, values[key])
        return [values[key] for key in keys]

    def _keep(self, key: bytes, value: Any) -> None:
        if key in self._values:
            self._values.move_to_end(key)
            return
        self._values[key] = value
        self._bytes += _size(value)
        while self._bytes > self.limit:
            _, old = self._values.popitem(last=False)
            self._bytes -= _size(old)

    def _key(self, image: np.ndarray) -> bytes:
        kind = f"{image.dtype}{image.shape}".encode()
        return hashlib.blake2b(
            np.ascontiguousarray(image).data, key=kind[:64], digest_size=16
        ).digest()


def _size(value: Any) -> int:
    return _LEAST + getattr(value, "nbytes", 0)
