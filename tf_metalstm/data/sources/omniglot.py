"""Omniglot: 1,623 characters of 50 alphabets, 20 drawings of each.

Lake, Salakhutdinov and Tenenbaum (2015), "Human-level concept learning through
probabilistic program induction", Science 350(6266). MIT licence.

There are two splits of the classes:

- "characters" is the usual split in few-shot learning. All characters of all alphabets are in one
  fixed pseudo-random order: 1,100 for training, 100 for validation, 423 for testing. The order has
  no seed, so all runs have the same classes.
- "alphabets" is the split of the authors. The evaluation alphabets are for testing. A sixth of the
  background alphabets is for validation. This is harder, because no character of a test alphabet is
  in the training.

With `rotations` every character turned by 90, 180 and 270 degrees is a class of its own, in every
split, as in Santoro et al. 2016 and most later papers.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from tf_metalstm.data.sources.base import (
    ClassImages,
    InconsistentDataError,
    MissingDataError,
    SplitCounts,
)
from tf_metalstm.data.sources.file_source import FileOptions, FilePlaceOptions, FileSource
from tf_metalstm.data.sources.pixels import gray_as_stored
from tf_metalstm.data.sources.staging import ImageIdentity
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.options import option
from tf_metalstm.parts import Part

CLASS_SPLITS = ("characters", "alphabets")
"""The ways to split the classes."""

IMAGE_SIZE = 28

BACKGROUND, EVALUATION = "images_background", "images_evaluation"

# Of 1,623 characters in a fixed order the first 1,100 are for training and the
# next 100 for validation. An incomplete copy has the same fractions.
_TRAIN_END, _VALIDATION_END, _ALL_CHARACTERS = 1100, 1200, 1623

_QUARTER_TURNS = (0, 1, 2, 3)


@dataclass(frozen=True)
class OmniglotClassOptions(FilePlaceOptions):
    """Options about the classes of Omniglot."""

    omniglot_split: str = option(
        "characters",
        "How the classes are split: all characters in a fixed order, or by alphabet.",
        choices=CLASS_SPLITS,
        settled=True,
        alike=True,
    )
    omniglot_rotations: bool = option(True, "Count rotated characters as further classes.")


@dataclass(frozen=True)
class OmniglotOptions(OmniglotClassOptions, FileOptions):
    """Options of Omniglot."""


class Omniglot(FileSource):
    """Omniglot as gray images, dark strokes on white.

    Args:
        data_dir: folder with the two official archives, zipped or unpacked.
        prepared_dir: folder of the prepared data sets.
        split: one of `CLASS_SPLITS`.
        rotations: whether each character turned by 90, 180 and 270 degrees is a class of its own.
        image_size: height and width in pixels.
        skip_corrupt: whether to leave out corrupt files instead of raising an error.
    """

    part = Part("omniglot", "Omniglot", "Lake et al., Science 2015", OmniglotOptions)
    name = "omniglot"
    description = (
        "Handwritten characters of 50 alphabets, 20 drawings of each by 20 people, "
        "scaled down to gray images; dark strokes on white."
    )
    citation = """@article{lake2015human,
      title={Human-level concept learning through probabilistic program induction},
      author={Lake, Brenden M. and Salakhutdinov, Ruslan and Tenenbaum, Joshua B.},
      journal={Science}, volume={350}, number={6266}, pages={1332--1338}, year={2015}}"""
    places = "<part>/<alphabet>/<character>/<drawing>.png"
    layout = (
        f"It must hold {BACKGROUND} and {EVALUATION}, each as a .zip archive or unpacked as a "
        "folder of <alphabet>/<character>/<drawing>.png. Both archives are in the folder "
        '"python" of the repository brendenlake/omniglot on GitHub'
    )

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        prepared_dir: str | os.PathLike[str] | None = None,
        *,
        split: str = "characters",
        rotations: bool = True,
        image_size: int = IMAGE_SIZE,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(data_dir, prepared_dir, image_size=image_size, skip_corrupt=skip_corrupt)
        if split not in CLASS_SPLITS:
            raise ValueError(
                f"unknown split of omniglot {split!r}: use one of {', '.join(CLASS_SPLITS)}"
            )
        self._class_split = split
        self._rotations = rotations

    @classmethod
    def from_options(cls, options: OmniglotOptions) -> ImageTasks:
        return ImageTasks.of(cls.of_classes(options), options)

    @classmethod
    def of_classes(cls, options: OmniglotClassOptions) -> "Omniglot":
        """Returns the source with the classes of these options."""
        return cls(
            options.data_dir,
            options.prepared_dir,
            split=options.omniglot_split,
            rotations=options.omniglot_rotations,
            image_size=options.image_size or IMAGE_SIZE,
            skip_corrupt=options.skip_corrupt,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height and width of the option image_size, one channel."""
        return (self._image_size, self._image_size, 1)

    def config_name(self) -> str:
        """Returns the name of the class split with the fingerprint of the raw files."""
        return f"{self._class_split}-{self.fingerprint()}"

    def locations(self, data_dir: Path) -> list[Path]:
        """Returns the background and the evaluation set, as archives or folders."""
        paths = []
        for part in (BACKGROUND, EVALUATION):
            # An archive is complete or damaged, but a folder may be half unpacked.
            archive, folder = data_dir / f"{part}.zip", data_dir / part
            existing = [archive] * archive.is_file() + [folder] * folder.is_dir()
            if not existing:
                raise MissingDataError(
                    f"omniglot: neither {part}.zip nor the folder {part} is in {data_dir}. "
                    f"{self.layout}"
                )
            paths.append(existing[0])
        return paths

    def identify(self, path: PurePosixPath) -> ImageIdentity | None:
        """Returns the alphabet and the character from the folders of a file."""
        if len(path.parts) < 4 or path.parts[-4] not in (BACKGROUND, EVALUATION):
            return None
        part, alphabet, character, file_name = path.parts[-4:]
        return ImageIdentity(part, f"{alphabet}/{character}", file_name)

    def decode(self, encoded: bytes, origin: str) -> tuple[np.ndarray, bytes]:
        """Returns the resized gray drawing, and the same as PNG."""
        return gray_as_stored(encoded, self._image_size, origin)

    def assign_splits(self, groups: dict[str, str]) -> dict[str, str]:
        """Returns the split of each character."""
        if self._class_split == "characters":
            return split_characters(groups)
        return split_alphabets(groups)

    def load(self, split: str) -> ClassImages:
        """Returns the drawings of a split, with rotations as further classes if they are on."""
        upright = super().load(split)
        return with_rotations(upright) if self._rotations else upright

    def class_names(self, split: str) -> tuple[str, ...]:
        """Returns the names of the classes of a split, with the rotations."""
        upright = super().class_names(split)
        return rotated_names(upright) if self._rotations else upright

    def fingerprint_of(self, split: str) -> str:
        """Returns the fingerprint of the upright drawings, or with rotations a hash of it."""
        upright = super().fingerprint_of(split)
        if not self._rotations:
            return upright
        return hashlib.sha256(f"{upright}, quarter turns".encode()).hexdigest()[:16]

    def counts(self, split: str) -> SplitCounts:
        """Returns the numbers of classes and drawings, with the rotations."""
        upright = super().counts(split)
        if not self._rotations:
            return upright
        turns = len(_QUARTER_TURNS)
        return upright._replace(
            num_classes=turns * upright.num_classes, num_images=turns * upright.num_images
        )


def split_characters(class_names: Iterable[str]) -> dict[str, str]:
    """Returns {class name: split}: 1,100 / 100 / 423 of 1,623 characters in a fixed order."""
    ordered = sorted(class_names, key=_stable_order)
    train_end = len(ordered) * _TRAIN_END // _ALL_CHARACTERS
    validation_end = len(ordered) * _VALIDATION_END // _ALL_CHARACTERS
    parts = {
        "train": ordered[:train_end],
        "validation": ordered[train_end:validation_end],
        "test": ordered[validation_end:],
    }
    return {name: split for split, names in parts.items() for name in names}


def split_alphabets(groups: dict[str, str]) -> dict[str, str]:
    """Returns {class name: split}; an alphabet is in one split only.

    Args:
        groups: {"<alphabet>/<character>": "images_background" or "images_evaluation"}.

    Raises:
        InconsistentDataError: there are fewer than two background alphabets.
    """
    alphabet_of = {name: name.split("/")[0] for name in groups}
    background = {alphabet_of[name] for name, part in groups.items() if part == BACKGROUND}
    if len(background) < 2:
        raise InconsistentDataError(
            f"omniglot: {len(background)} alphabet found in {BACKGROUND}, but training and "
            "validation need at least one each (the official data have 30)"
        )
    ordered = sorted(background, key=_stable_order)
    held_out = set(ordered[: max(1, len(ordered) // 6)])

    def split_of(name: str) -> str:
        if groups[name] == EVALUATION:
            return "test"
        return "validation" if alphabet_of[name] in held_out else "train"

    return {name: split_of(name) for name in groups}


def with_rotations(upright: ClassImages) -> ClassImages:
    """Returns each class and the same turned anticlockwise by one, two and three quarters.

    Args:
        upright: C classes of square images.

    Returns:
        4 C classes; "X" becomes "X@000", "X@090", "X@180" and "X@270", side by side.
    """
    blocks: list[np.ndarray] = []
    for images in np.split(upright.images, np.cumsum(upright.class_sizes)[:-1]):
        blocks.extend(np.rot90(images, turns, axes=(1, 2)) for turns in _QUARTER_TURNS)
    names = rotated_names(upright.class_names)
    sizes = np.repeat(upright.class_sizes, len(_QUARTER_TURNS))
    return ClassImages(np.concatenate(blocks), sizes, names)


def rotated_names(class_names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of each class and of its rotations, side by side."""
    return tuple(f"{name}@{90 * turns:03d}" for name in class_names for turns in _QUARTER_TURNS)


def _stable_order(name: str) -> bytes:
    """Returns a key that orders names pseudo-randomly, the same on every machine."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
