"""Images in IDX files, the format of MNIST and Fashion-MNIST.

    train-images-idx3-ubyte   train-labels-idx1-ubyte
    t10k-images-idx3-ubyte    t10k-labels-idx1-ubyte      each plain or as .gz

A file has two zero bytes, the type (8 for bytes), the number of dimensions, each size as a
big-endian 32-bit integer, then the values.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from tf_metalstm.data.sources.base import (
    ClassImages,
    CorruptImageError,
    InconsistentDataError,
    MissingDataError,
    check_split,
)

_VALIDATION = 10_000  # the last of the training images
_BYTES = 8  # the type


def load_idx(folder: str | Path, split: str) -> ClassImages:
    """Returns the images of a split by class, uint8 [total, h, w, 1].

    The last 10,000 training images are the split validation, or the last sixth if there are fewer
    than 60,000. The other training images are the split train, and the test images are the split
    test.

    Args:
        folder: folder with the four files.
        split: one of `SPLITS`; all have the same classes.

    Raises:
        MissingDataError: a file does not exist.
        CorruptImageError: a file is not an IDX file of bytes, or is incomplete.
        InconsistentDataError: images and labels do not belong together.
    """
    part = "t10k" if check_split(split) == "test" else "train"
    images = read_idx(_found(folder, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_found(folder, f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise InconsistentDataError(
            f"{folder}: images of the shape {images.shape} and labels of the shape {labels.shape} "
            "do not belong together: download both files again."
        )
    if part == "train":
        kept = len(images) - min(_VALIDATION, len(images) // 6)
        rows = slice(0, kept) if split == "train" else slice(kept, None)
        images, labels = images[rows], labels[rows]
    order = np.argsort(labels, kind="stable")
    classes, sizes = np.unique(labels, return_counts=True)
    names = tuple(f"{label}" for label in classes)
    return ClassImages(images[order][..., np.newaxis], sizes.astype(np.int64), names)


def read_idx(path: Path) -> np.ndarray:
    """Returns the values of an IDX file of bytes, uint8.

    Raises:
        CorruptImageError: it is not such a file, or is incomplete.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorruptImageError(f"{path} is damaged ({error}): download it again.") from error
    dimensions = data[3] if len(data) > 3 else 0
    if data[:3] != bytes((0, 0, _BYTES)) or len(data) < 4 + 4 * dimensions:
        raise CorruptImageError(f"{path} is not an IDX file of bytes: download it again.")
    shape = np.frombuffer(data, ">u4", dimensions, offset=4).tolist()
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if len(values) != math.prod(shape):
        raise CorruptImageError(
            f"{path} should have {math.prod(shape)} values, has {len(values)}: download it again."
        )
    return values.reshape(shape)


def _found(folder: str | Path, name: str) -> Path:
    for path in (Path(folder, name), Path(folder, f"{name}.gz")):
        if path.is_file():
            return path
    raise MissingDataError(
        f"Neither {name} nor {name}.gz is in {folder}: give the folder of MNIST's or "
        "Fashion-MNIST's four files as data_dir."
    )
