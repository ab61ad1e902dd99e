"""Collects, checks and splits raw images, before they are written as a prepared data set.

All encoded images of a source are kept in memory before they are written. These are
15 MB for Omniglot and 200 MB for mini-ImageNet, less than the decoded images in
training. So an archive is read only once, even if its splits are mixed, and every
contradiction is found before anything is written.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tf_metalstm.data.sources.base import (
    SPLITS,
    ChannelStatistics,
    CorruptImageError,
    InconsistentDataError,
    fingerprint_of_classes,
    pixel_digest,
)
from tf_metalstm.data.sources.folders import LeftOut


class ImageIdentity(NamedTuple):
    """The identity of an image.

    Attributes:
        group: name in the raw data that determines the split, such as "images_background".
        class_name: name of its class.
        file_name: name that is unique in the class; images of a class are ordered by it.
    """

    group: str
    class_name: str
    file_name: str


class _StagedClass:
    """The images of one class, and the sums for the statistics."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.encoded: dict[str, bytes] = {}
        self.digests: dict[str, bytes] = {}  # of the pixels
        self.num_pixels = 0
        self.pixel_sum = np.float64(0)  # [c] from the first image on
        self.square_sum = np.float64(0)

    def count_pixels(self, pixels: np.ndarray) -> None:
        """Adds the pixels of an image, uint8 [h, w, c], to the sums.

        The sums are whole numbers far below 2^53, which float64 adds exactly. So the
        statistics do not depend on the order of the images.
        """
        by_channel = np.moveaxis(pixels, -1, 0).reshape(pixels.shape[-1], -1)
        by_channel = by_channel.astype(np.float64, order="C")
        self.num_pixels += by_channel.shape[1]
        self.pixel_sum += by_channel.sum(axis=1)
        self.square_sum += np.einsum("cp,cp->c", by_channel, by_channel)


class Staging:
    """Collects the images of a source by class.

    Args:
        source_name: name of the source, for errors.
        skip_corrupt: whether to leave out and count corrupt files instead of raising an error.
        root: paths in messages are relative to this folder.
        once_each: whether to leave out an image with the same pixels as another one, and name both.

    Attributes:
        skipped: the errors of the corrupt files that were left out.
        left_out: the other files that were left out.
    """

    def __init__(
        self,
        source_name: str,
        *,
        skip_corrupt: bool = False,
        root: Path | None = None,
        once_each: bool = False,
    ) -> None:
        self.skipped: list[str] = []
        self.left_out = LeftOut(root)
        self._source_name = source_name
        self._skip_corrupt = skip_corrupt
        self._classes: dict[str, _StagedClass] = {}
        self._first: dict[bytes, ImageIdentity] | None = {} if once_each else None

    @property
    def num_images(self) -> int:
        """Number of images so far."""
        return sum(len(staged.encoded) for staged in self._classes.values())

    def add(self, identity: ImageIdentity, pixels: np.ndarray, encoded: bytes) -> None:
        """Adds an image; ignores an equal file with the same identity.

        Args:
            identity: identity of the image.
            pixels: uint8 [h, w, c].
            encoded: the bytes to store.

        Raises:
            InconsistentDataError: its class belongs to another split, or another image has
                the same name.
        """
        staged = self._classes.get(identity.class_name) or _StagedClass(identity.group)
        if staged.group != identity.group:
            raise InconsistentDataError(
                f"{self._source_name}: class {identity.class_name!r} is in both "
                f"{staged.group!r} and {identity.group!r}, but the splits must not share "
                "classes: remove it from one of them"
            )
        known = staged.encoded.get(identity.file_name)
        if known == encoded:
            return
        if known is not None:
            raise InconsistentDataError(
                f"{self._source_name}: two different images have the name "
                f"{identity.class_name}/{identity.file_name}: keep one of them, or check "
                "whether the folder has files of two versions of the data"
            )
        digest = pixel_digest(pixels)
        if self._is_double(identity, digest):
            return
        self._classes[identity.class_name] = staged
        staged.encoded[identity.file_name] = encoded
        staged.digests[identity.file_name] = digest
        staged.count_pixels(pixels)

    def _is_double(self, identity: ImageIdentity, digest: bytes) -> bool:
        """Returns whether to leave out an image because an earlier one has the same pixels."""
        if self._first is None:
            return False
        first = self._first.setdefault(digest, identity)
        if first is identity:
            return False
        where = "its class" if first.class_name == identity.class_name else "another class"
        names = f"{identity.file_name} (as {first.file_name})"
        self.left_out.add(f"the same picture as one before in {where}", names)
        return True

    def skip(self, error: CorruptImageError) -> None:
        """Counts a corrupt file, or raises its error with advice."""
        if not self._skip_corrupt:
            raise CorruptImageError(
                f"{self._source_name}: {error}: replace the file, or leave such files out with "
                "--skip_corrupt (in Python, skip_corrupt=True)"
            ) from error
        self.skipped.append(str(error))

    def finish(self, split_of: Callable[[dict[str, str]], dict[str, str]]) -> "StagedSplits":
        """Returns the images, divided into splits.

        Args:
            split_of: returns {class name: split} from {class name: group}.

        Raises:
            InconsistentDataError: the training split would be empty.
        """
        split_by_class = split_of({name: c.group for name, c in self._classes.items()})
        splits: dict[str, dict[str, dict[str, bytes]]] = {}
        for split in SPLITS:
            members = sorted(name for name, s in split_by_class.items() if s == split)
            if members:
                splits[split] = {name: self._classes[name].encoded for name in members}
        if "train" not in splits:
            raise InconsistentDataError(
                f"{self._source_name}: {self.num_images} images found, but none in the training "
                f"split; splits found: {', '.join(splits) or 'none'}"
                f"{''.join(f'; {line}' for line in self.left_out.lines())}"
            )
        fingerprints = {split: self._fingerprint(members) for split, members in splits.items()}
        statistics = self._statistics(splits["train"])
        left_out = tuple(self.left_out.lines())
        return StagedSplits(splits, statistics, fingerprints, tuple(self.skipped), left_out)

    def _fingerprint(self, class_names: Iterable[str]) -> str:
        """Returns the fingerprint of classes, with their images in stored order."""
        return fingerprint_of_classes(
            (name, [digest for _, digest in sorted(self._classes[name].digests.items())])
            for name in class_names
        )

    def _statistics(self, class_names: dict[str, dict[str, bytes]]) -> ChannelStatistics:
        classes = [self._classes[name] for name in class_names]
        num_pixels = sum(staged.num_pixels for staged in classes)
        mean = np.sum([staged.pixel_sum for staged in classes], axis=0) / num_pixels
        mean_square = np.sum([staged.square_sum for staged in classes], axis=0) / num_pixels
        return ChannelStatistics(mean, np.sqrt(mean_square - np.square(mean)))


class StagedSplits(NamedTuple):
    """All images of a source, split by class.

    Attributes:
        images: split -> class name -> file name -> encoded image; the classes are sorted,
            empty splits are left out.
        statistics: mean and deviation of the training split.
        fingerprints: split -> the result of `Source.fingerprint_of`.
        skipped: the error of each corrupt file that was left out.
        left_out: a line for each other reason why files were left out.
    """

    images: dict[str, dict[str, dict[str, bytes]]]
    statistics: ChannelStatistics
    fingerprints: dict[str, str]
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]
