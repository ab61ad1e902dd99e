"""Images between their raw files and the prepared data set: collected, checked, split.

All of a source is staged in memory, encoded, before any of it is written. That
is 15 MB for Omniglot and 200 MB for mini-ImageNet, less than the decoded images
that training holds later, and it lets an archive be read once although its
splits are mixed, and lets every contradiction be found before a byte is written.
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
    """Which image a raw file is.

    Attributes:
        group: what the raw data say about its split, such as "images_background".
        class_name: the name of its class, the same wherever the class is seen.
        file_name: unique within the class; images of a class are ordered by it.
    """

    group: str
    class_name: str
    file_name: str


class _StagedClass:
    """The images of one class, and the sums that its statistics need."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.encoded: dict[str, bytes] = {}
        self.digests: dict[str, bytes] = {}  # of the pixels
        self.num_pixels = 0
        self.pixel_sum = np.float64(0)  # [c] from the first image on
        self.square_sum = np.float64(0)

    def count_pixels(self, pixels: np.ndarray) -> None:
        """Adds the pixels of an image, uint8 [h, w, c], to the sums.

        The sums are whole numbers far below 2^53, which float64 adds exactly: the
        statistics do not depend on the order in which images are read.
        """
        by_channel = np.moveaxis(pixels, -1, 0).reshape(pixels.shape[-1], -1)
        by_channel = by_channel.astype(np.float64, order="C")
        self.num_pixels += by_channel.shape[1]
        self.pixel_sum += by_channel.sum(axis=1)
        self.square_sum += np.einsum("cp,cp->c", by_channel, by_channel)


class Staging:
    """Collects the images of a source class by class.

    Args:
        source_name: names the source in errors.
        skip_corrupt: count corrupt files instead of raising for the first.
        root: folder from which on the paths of files are said.
        once_each: leave out an image whose pixels are those of another one, and name both.

    Attributes:
        skipped: names of the corrupt files that were left out.
        left_out: what else was not taken.
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
        """How many images are staged so far."""
        return sum(len(staged.encoded) for staged in self._classes.values())

    def add(self, identity: ImageIdentity, pixels: np.ndarray, encoded: bytes) -> None:
        """Adds an image; the same file met a second time is left out.

        Args:
            identity: which image it is.
            pixels: uint8 [h, w, c].
            encoded: what will be stored.

        Raises:
            InconsistentDataError: its class belongs to another split, or another
                image has its name.
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
                f"{self._source_name}: two different images are both called "
                f"{identity.class_name}/{identity.file_name}: keep one of them, or look "
                "whether files of two versions of the data lie side by side"
            )
        digest = pixel_digest(pixels)
        if self._is_double(identity, digest):
            return
        self._classes[identity.class_name] = staged
        staged.encoded[identity.file_name] = encoded
        staged.digests[identity.file_name] = digest
        staged.count_pixels(pixels)

    def _is_double(self, identity: ImageIdentity, digest: bytes) -> bool:
        """Whether an image is to be left out because another one has its pixels."""
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
        """Counts a corrupt file, or raises its error with the remedy."""
        if not self._skip_corrupt:
            raise CorruptImageError(
                f"{self._source_name}: {error}: replace the file, or leave such files out with "
                "--skip_corrupt (in Python, skip_corrupt=True)"
            ) from error
        self.skipped.append(str(error))

    def finish(self, split_of: Callable[[dict[str, str]], dict[str, str]]) -> "StagedSplits":
        """Sorts the classes into splits.

        Args:
            split_of: from {class name: group} to {class name: split}.

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
                f"{self._source_name}: {self.num_images} images found, but none of a training "
                f"class; splits found: {', '.join(splits) or 'none'}"
                f"{''.join(f'; {line}' for line in self.left_out.lines())}"
            )
        fingerprints = {split: self._fingerprint(members) for split, members in splits.items()}
        statistics = self._statistics(splits["train"])
        left_out = tuple(self.left_out.lines())
        return StagedSplits(splits, statistics, fingerprints, tuple(self.skipped), left_out)

    def _fingerprint(self, class_names: Iterable[str]) -> str:
        """Of the classes of a split, the images in the order in which they are stored."""
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
        images: split -> class name -> file name -> encoded image; the classes
            sorted, empty splits left out.
        statistics: of the training split.
        fingerprints: split -> what `Source.fingerprint_of` returns.
        skipped: what was wrong with each corrupt file that was left out.
        left_out: a line for each other reason why files were left out.
    """

    images: dict[str, dict[str, dict[str, bytes]]]
    statistics: ChannelStatistics
    fingerprints: dict[str, str]
    skipped: tuple[str, ...]
    left_out: tuple[str, ...]
