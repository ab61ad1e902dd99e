"""Reads image files for a model. Needs numpy, pillow, and the other files of this folder."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from decoding import UnreadableImageError, decode_image, squeeze
from folders import ClientError, in_view
from PIL import Image
from remarks import Look, look_at


def read_support(
    classes: dict[str, list[Path]], shape: Sequence[int]
) -> tuple[np.ndarray, list[str], list[Path]]:
    """Returns images [B, h, w, c], their classes and files, in the order of training."""
    columns = []
    for name, files in classes.items():
        read = [(path, image, name) for path, image in read_images(files, shape)]
        if not read:
            raise ClientError(f"None of the images of class '{name}' can be read.")
        columns.append(read)
    shots = itertools.chain.from_iterable(itertools.zip_longest(*columns))
    paths, images, labels = zip(*(shot for shot in shots if shot is not None), strict=True)
    return np.stack(images), list(labels), list(paths)


def read_images(paths: Iterable[Path], shape: Sequence[int]) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields the pixels of images; names files that cannot be read, and continues."""
    for path in in_view(list(paths), "Reading", "image"):
        try:
            image = read_image(path, shape)
        except UnreadableImageError as error:
            print(f"skipped: {error}", file=sys.stderr)
        else:
            yield path, image


def looked_at(
    images: Iterable[tuple[Path, np.ndarray]], looks: list[Look]
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields queries; adds the properties of each to a list, for warnings."""
    for path, image in images:
        looks.append(look_at(str(path), None, image))
        yield path, image


def read_image(path: Path, shape: Sequence[int]) -> np.ndarray:
    """Returns the pixels 0 ... 255 of an image, float32 [h, w, c], as in training.

    Raises:
        UnreadableImageError: the file cannot be read; the error has the name and the reason.
    """
    return squeeze(open_image(path), shape).astype(np.float32)


def open_image(path: Path) -> Image.Image:
    """Returns an image of 8 bits, upright by its EXIF entry, with white for transparency."""
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read ({error.strerror})") from error
    return decode_image(encoded, str(path))
