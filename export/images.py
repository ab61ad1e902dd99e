"""Finds and reads image files as a model wants them. Needs numpy and pillow."""

from __future__ import annotations

import glob
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# What Pillow raises for bytes that are no image, or only half of one.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class ClientError(Exception):
    """Something that the user has to put right."""


def class_files(root: Path) -> dict[str, list[Path]]:
    """Returns the files of every class: all that is in or below its folder, sorted."""
    folders, files = _entries(root)
    if not folders:
        raise ClientError(f"{root} has no class folders: expected {root}/<class>/<image>.")
    if files:
        raise ClientError(f"{files[0]} is in no class folder: move it into one, or away.")
    classes = {folder.name: _below(folder) for folder in folders}
    for name, found in classes.items():
        if not found:
            raise ClientError(f"The class folder {root / name} holds no image.")
    return classes


def query_files(
    patterns: Sequence[str], names: Sequence[str]
) -> tuple[list[tuple[str, Path]], dict[Path, str]]:
    """Finds the images to classify.

    Args:
        patterns: files, folders, or patterns as `photos/*.jpg`.
        names: of the classes.

    Returns:
        What to call each file, and the file; and for those whose class their folder tells, that.
    """
    files: list[tuple[str, Path]] = []
    classes: dict[Path, str] = {}
    for pattern in patterns:
        found = [Path(pattern)] if Path(pattern).exists() else _matches(pattern)
        for path in found:
            if not path.is_dir():
                files.append((path.as_posix(), path))
                continue
            folders, loose = _entries(path)
            if folders and not loose:
                labelled = _labelled(path, names)
                classes.update(labelled)
                below = list(labelled)
            else:
                below = _below(path)
            if not below:
                raise ClientError(f"{path} holds no image.")
            files.extend((file.relative_to(path).as_posix(), file) for file in below)
    return files, classes


def read_support(
    classes: dict[str, list[Path]], shape: Sequence[int]
) -> tuple[np.ndarray, list[str], list[Path]]:
    """Returns images [B, h, w, c], their classes and files, shot by shot as in training."""
    columns = []
    for name, files in classes.items():
        read = [(path, image, name) for path, image in read_images(files, shape)]
        if not read:
            raise ClientError(f"None of the images of class {name!r} can be read.")
        columns.append(read)
    shots = itertools.chain.from_iterable(itertools.zip_longest(*columns))
    paths, images, labels = zip(*(found for found in shots if found is not None), strict=True)
    return np.stack(images), list(labels), list(paths)


def read_images(paths: Iterable[Path], shape: Sequence[int]) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields images as the model wants them; names those that cannot be read, and goes on."""
    for path in paths:
        try:
            image = read_image(path, shape)
        except _DAMAGED as error:
            print(f"skipped: {path} is not a readable image ({error})", file=sys.stderr)
        else:
            yield path, image


def read_image(path: Path, shape: Sequence[int]) -> np.ndarray:
    """Returns pixels 0 ... 255, float32 [h, w, c].

    Gray or color as the model was trained, and squeezed to size by the filter that prepared the
    training images.
    """
    height, width, channels = shape
    image = open_image(path).convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32).reshape(height, width, channels)


def open_image(path: Path) -> Image.Image:
    """Returns an image of 8 bits, upright by its EXIF entry, on white where it is transparent."""
    with Image.open(path) as opened:
        opened.load()
        image = ImageOps.exif_transpose(opened)
    if image.mode == "F":
        raise ValueError("pixels are floating point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray(np.clip(np.asarray(image) / 257.0, 0, 255).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _labelled(root: Path, names: Sequence[str]) -> dict[Path, str]:
    """Returns the files below class folders, and their classes."""
    labelled = {}
    for name, files in class_files(root).items():
        if name not in names:
            raise ClientError(
                f"{root / name} is none of the classes of the support folder ({', '.join(names)}): "
                "rename it, or put images of unknown class into one folder without class folders."
            )
        labelled.update(dict.fromkeys(files, name))
    return labelled


def _matches(pattern: str) -> list[Path]:
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    if not found:
        raise ClientError(f"--query {pattern}: there is no such file or folder, and none matches.")
    return [path for path in found if not path.is_dir()] or found


def _entries(root: Path) -> tuple[list[Path], list[Path]]:
    """Returns the folders and the files in a folder, sorted, without hidden ones."""
    if not root.is_dir():
        raise ClientError(f"{root} is not a folder.")
    visible = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    return [p for p in visible if p.is_dir()], [p for p in visible if not p.is_dir()]


def _below(root: Path) -> list[Path]:
    """Returns all files in a folder and the folders in it, sorted, without hidden ones."""
    folders, files = _entries(root)
    return sorted([*files, *itertools.chain.from_iterable(map(_below, folders))])
