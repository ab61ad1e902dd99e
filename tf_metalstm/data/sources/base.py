"""The interface of a source of images: classes of images, split by class.

Only sources read and write files of data. A source returns plain arrays, one split at
a time. No class is in two splits.

h, w, c are the height, width and channels of an image. C is the number of classes of a
split.
"""

import abc
import hashlib
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import numpy as np

from tf_metalstm.parts import Part

SPLITS = ("train", "validation", "test")
"""The splits of the classes, in the order in which they are reported."""


class MissingDataError(FileNotFoundError):
    """The raw files of a source are not in the expected place."""


class CorruptImageError(ValueError):
    """A raw file that should be an image is not one, or is damaged."""


class InconsistentDataError(ValueError):
    """The raw files contradict each other, or cannot be split into train, validation and test."""


class ClassImages(NamedTuple):
    """All images of one split, in memory.

    Attributes:
        images: uint8 [total, h, w, c], grouped by class, in the order of
            `class_names`; within a class in the order of the file names.
        class_sizes: int64 [C], number of images of each class; class j has the rows
            `sum(class_sizes[:j])` up to `sum(class_sizes[:j + 1])`.
        class_names: C names, sorted and unique.
    """

    images: np.ndarray
    class_sizes: np.ndarray
    class_names: tuple[str, ...]


class SplitCounts(NamedTuple):
    """The numbers of classes and images in one split."""

    num_classes: int
    num_images: int
    smallest_class: int


class ChannelStatistics(NamedTuple):
    """Mean and standard deviation of each channel, float64 [c], pixels in 0..255."""

    mean: np.ndarray
    std: np.ndarray


class Source(abc.ABC):
    """Classes of images, split by class into train, validation and test."""

    family: ClassVar[str] = "source"
    part: ClassVar[Part]
    kind: ClassVar[str] = "images"
    name: ClassVar[str]

    @property
    @abc.abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (h, w, c) of every image."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Prepares the images for `load`; does nothing if they are prepared already.

        Raises:
            MissingDataError: the raw files do not exist.
            CorruptImageError: a raw file cannot be read as an image.
            InconsistentDataError: a class is in two splits, or a split is empty.
        """

    @abc.abstractmethod
    def load(self, split: str) -> ClassImages:
        """Returns all images of a split; prepares the source first if necessary.

        Args:
            split: one of `SPLITS`.

        Raises:
            ValueError: the split is unknown.
            MissingDataError: the raw files have no images of this split.
        """

    def class_names(self, split: str) -> tuple[str, ...]:
        """Returns the names of the classes that `load(split)` would return."""
        return self.load(split).class_names

    @abc.abstractmethod
    def channel_statistics(self) -> ChannelStatistics:
        """Returns mean and deviation of the training images, computed once, at preparation."""

    @abc.abstractmethod
    def counts(self, split: str) -> SplitCounts:
        """Returns the numbers of classes and images that `load(split)` would return."""

    @abc.abstractmethod
    def describe(self, split: str | None = None) -> str:
        """Returns a text with the classes and images, a line for each split, or for one split."""

    def fingerprint_of(self, split: str) -> str:
        """Returns a hash of what `load(split)` returns, sixteen hexadecimal digits.

        It depends on the pixels, the class names and the order of the images. It does not depend
        on the place or the layout of the raw files.

        Raises:
            ValueError: the split is unknown.
            MissingDataError: the raw files have no images of this split.
        """
        images, sizes, names = self.load(split)
        by_class = np.split(images, np.cumsum(sizes)[:-1])
        return fingerprint_of_classes(
            (name, [pixel_digest(pixels) for pixels in of_class])
            for name, of_class in zip(names, by_class, strict=True)
        )


def pixel_digest(pixels: np.ndarray) -> bytes:
    """Returns a hash of an image, uint8 [h, w, c]."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def fingerprint_of_classes(classes: Iterable[tuple[str, Iterable[bytes]]]) -> str:
    """Returns a hash of classes, sixteen hexadecimal digits.

    Args:
        classes: name of each class, with the digests of its images.
    """
    digest = hashlib.sha256()
    for name, images in classes:
        of_class = hashlib.sha256(b"".join(images)).hexdigest()
        digest.update(f"{name!r} {of_class}\n".encode())
    return digest.hexdigest()[:16]


def check_split(split: str) -> str:
    """Returns `split`, or raises a ValueError that lists the known splits."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    return split
