"""Pictures in class folders, with the same classes for training and test, such as CIFAR-10.

    train/CLASS/PICTURE     test/CLASS/PICTURE

The pictures are in color, 0 ... 255, resized without cropping.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from tf_metalstm.data.sources.base import (
    ClassImages,
    InconsistentDataError,
    MissingDataError,
    check_split,
)
from tf_metalstm.data.sources.class_folders import may_be_picture
from tf_metalstm.data.sources.folders import files_below
from tf_metalstm.data.sources.pixels import pixels

_VALIDATION = 6  # a sixth of the training pictures of each class


def load_folders(folder: str | Path, split: str, size: int) -> ClassImages:
    """Returns the pictures of a split by class, uint8 [total, size, size, 3].

    The training pictures of a class are sorted by name. The first five sixths are the split train,
    the others the split validation. The test pictures are the split test.

    Args:
        folder: folder that has the folders train and test.
        split: one of `SPLITS`; all have the same classes.
        size: height and width in pixels.

    Raises:
        MissingDataError: train or test does not exist.
        InconsistentDataError: they have different classes, or a class is too small.
        CorruptImageError: a file is not a picture; the error names it.
    """
    classes = {part: _classes(Path(folder, part)) for part in ("train", "test")}
    if classes["train"].keys() != classes["test"].keys():
        different = sorted(classes["train"].keys() ^ classes["test"].keys())
        raise InconsistentDataError(
            f"{folder}: train and test must have the same class folders, but only one of them has "
            f"{', '.join(different[:3])}."
        )
    chosen = classes["test" if check_split(split) == "test" else "train"]
    if split != "test":
        chosen = {name: _part(files, split) for name, files in chosen.items()}
    small = [name for name, files in chosen.items() if not files]
    if small:
        raise InconsistentDataError(f"{folder}: class {small[0]} has no pictures for {split}.")
    files = [path for paths in chosen.values() for path in paths]
    images = [pixels(path.read_bytes(), (size, size, 3), str(path)) for path in files]
    sizes = np.array([len(paths) for paths in chosen.values()], np.int64)
    return ClassImages(np.stack(images), sizes, tuple(chosen))


def _part(files: list[Path], split: str) -> list[Path]:
    kept = len(files) - len(files) // _VALIDATION
    return files[:kept] if split == "train" else files[kept:]


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Returns the pictures of each class folder, sorted by name."""
    if not folder.is_dir():
        raise MissingDataError(
            f"{folder} is not there: give a folder with train/CLASS/PICTURE and test/CLASS/PICTURE "
            "as data_dir."
        )
    pictures: dict[str, list[Path]] = {}
    for path in files_below(folder):
        if path.parent != folder and may_be_picture(PurePosixPath(path)):
            pictures.setdefault(path.relative_to(folder).parts[0], []).append(path)
    return {name: sorted(pictures[name]) for name in sorted(pictures)}
