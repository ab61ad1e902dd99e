"""Converts images of users into the pixels that a model takes.

Images may be in a list, a tuple, a column of a table (pandas, polars) or an array. Each is a path,
the bytes of a file, a picture of Pillow, or an array of any size. All images may also be one array
of numbers [B, h, w] or [B, h, w, c], with c 1 (gray), 3 (color) or 4 (color and opacity), pixels
0 ... 255. Images of another size are squeezed to that of the model, as in training. Numbers that
are not whole are rounded first.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tqdm
from PIL import Image

from tf_metalstm.data.sources.base import CorruptImageError
from tf_metalstm.data.sources.decoding import UnreadableImageError, plain_image, squeeze
from tf_metalstm.data.sources.pixels import pixels as decode

_FILES = (str, bytes, os.PathLike, Image.Image)
_CHANNELS = (1, 3, 4)
_FILES_KEPT = 512  # files whose pixels are stored; 77 MB at 224 x 224
OFFER = "Leave such files out with skip_corrupt=True"
_NAMES = 10  # unreadable files in an error


class GivenImages(NamedTuple):
    """Images as pixels.

    pixels: 0 ... 255, uint8 or float32 [B, h, w, c].
    names: path of each image, or its place in the list, [B].
    places: place of each image in the input, int [B].
    number: number of images in the input.
    skipped: a sentence for each image that cannot be read.
    """

    pixels: np.ndarray
    names: list[str]
    places: np.ndarray
    number: int
    skipped: list[str]


def take_images(images: Any, image_shape: Sequence[int], skip_corrupt: bool = False) -> GivenImages:
    """Returns the pixels of images.

    Args:
        images: in one of the forms above.
        image_shape: (h, w, c) of the model, c 1 or 3.
        skip_corrupt: whether files that cannot be read are left out. If none can be read, it is an
            error.

    Raises:
        FileNotFoundError: files do not exist; the others can be read.
        ValueError: an image cannot be used. Files are named, each with the reason.
    """
    listed = _listed(images)
    number = len(listed)
    if not number:
        raise ValueError("There are no images.")
    if isinstance(listed, np.ndarray):
        names = [f"image {i}" for i in range(number)]
        return GivenImages(_batch(listed, image_shape), names, np.arange(number), number, [])
    _check_arrays(listed)
    read: dict[int, np.ndarray] = {}
    errors: list[Exception] = []
    bar = tqdm.tqdm(listed, "Reading", unit="image", delay=1, leave=False, disable=None)
    for place, one in enumerate(bar):
        try:
            read[place] = _one(one, image_shape, place)
        except (OSError, CorruptImageError, UnreadableImageError) as error:
            errors.append(error)
    if errors and (not skip_corrupt or not read):
        _refuse(errors, number)
    names = [_name(listed[place], place) for place in read]
    pixels, skipped = np.stack(list(read.values())), [str(error) for error in errors]
    return GivenImages(pixels, names, np.array(list(read)), number, skipped)


def _refuse(errors: Sequence[Exception], number: int) -> None:
    """Raises an error that names all files that cannot be read."""
    missing = all(isinstance(error, FileNotFoundError) for error in errors)
    said = [str(error) for error in errors[:_NAMES]]
    if len(errors) > _NAMES:
        said.append(f"and {len(errors) - _NAMES} more")
    text = "; ".join(said)
    if len(errors) == number:
        text = text if number == 1 else f"None of the {number} images can be read: {text}"
    else:
        start = "" if len(errors) == 1 else f"{len(errors)} of {number} images cannot be read: "
        text = f"{start}{text}. {OFFER}"
    # The error of the first file has its name.
    cause = errors[0].__cause__ or errors[0]
    raise (FileNotFoundError if missing else ValueError)(f"{text}.") from cause


def _listed(images: Any) -> list[Any] | np.ndarray:
    """Returns a list of images, or one array of numbers."""
    if isinstance(images, _FILES):
        raise ValueError("Expected a list of images, got a single one: give [image].")
    if hasattr(images, "to_numpy"):  # a column of a table
        images = images.to_numpy()
    is_array = hasattr(images, "__array__")
    if not is_array and (isinstance(images, (Mapping, Set)) or not isinstance(images, Iterable)):
        raise ValueError(
            f"Expected a list or an array of images, got {type(images).__name__}: see the help of "
            "FewShotClassifier for what can be given."
        )
    if is_array:
        return _rows(np.asarray(images))
    images = [np.asarray(one) if hasattr(one, "__array__") else one for one in images]
    return images if any(isinstance(one, _FILES) for one in images) else _stacked(images)


def _rows(array: np.ndarray) -> list[Any] | np.ndarray:
    """Returns the images of an array of objects or texts as a list; numbers stay an array."""
    if array.ndim and array.dtype.kind not in "OUST":
        return array
    if array.ndim == 2 and array.shape[1] == 1:  # a table of one column
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"Expected one image a row, got {array.dtype} {list(array.shape)}: give a list, or one "
            "column."
        )
    return array.tolist()


def _stacked(images: list[Any]) -> list[Any] | np.ndarray:
    """Returns arrays of one shape as one array; any other list is returned as it is."""
    try:
        arrays = [np.asarray(one) for one in images]
    except ValueError:  # rows of different lengths
        return images
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else images


def _batch(array: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Returns an array of numbers in the shape of the model."""
    single = array.ndim == 3 and array.shape[-1] in _CHANNELS
    images = array[..., np.newaxis] if array.ndim == 3 else array
    wrong = images.ndim != 4 or images.shape[-1] not in _CHANNELS or array.dtype.kind not in "uif"
    if single or wrong or not images.size:
        shape = ", ".join(map(str, image_shape))
        hint = " That is one image: give [image]." if single else ""
        raise ValueError(
            f"Expected numbers [B, {shape}], or [B, h, w] or [B, h, w, c] of another size with c "
            f"1, 3 or 4, or a list of image files; got {array.dtype} {list(array.shape)}.{hint}"
        )
    _check_levels(images.min(), images.max())
    if images.shape[1:] == tuple(image_shape):
        return images if images.dtype == np.uint8 else images.astype(np.float32)
    return np.stack([_of_array(one, image_shape) for one in images])


def _check_arrays(listed: Sequence[Any]) -> None:
    """Checks the levels of all arrays in a list together, because one may be dark."""
    arrays = [one for one in listed if isinstance(one, np.ndarray) and one.dtype.kind in "if"]
    arrays = [one for one in arrays if one.size]
    if arrays:
        _check_levels(min(one.min() for one in arrays), max(one.max() for one in arrays))


def _check_levels(low: float, high: float) -> None:
    # Written so that NaN fails. All pixels may be black.
    if not (low >= 0 and 1 < high <= 255) and not low == high == 0:
        raise ValueError(
            f"Pixels go from 0 to 255, these from {low:g} to {high:g}: give them as they come from "
            "a file, without a normalization of your own."
        )


def _one(one: Any, image_shape: Sequence[int], place: int) -> np.ndarray:
    """Returns the pixels [h, w, c] of a file, a picture or an array of any size."""
    if isinstance(one, bytes):
        return decode(one, image_shape, _place(place))
    if isinstance(one, (str, os.PathLike)):
        return _of_file(os.fspath(one), _state(one), tuple(image_shape))
    if isinstance(one, Image.Image):
        try:
            return squeeze(plain_image(one), image_shape)
        except (OSError, ValueError) as error:  # Pillow may read the file only now
            raise UnreadableImageError(f"{_place(place)} cannot be read ({error})") from error
    if isinstance(one, np.ndarray) and one.size and one.dtype.kind in "uif":
        array = one[..., np.newaxis] if one.ndim == 2 else one
        if array.ndim == 3 and array.shape[-1] in _CHANNELS:
            return _of_array(array, image_shape)
    is_array = isinstance(one, np.ndarray)
    raise ValueError(
        f"{_place(place)} is neither a file, nor a picture of Pillow, nor an array of numbers "
        "[h, w], [h, w, 1], [h, w, 3] or [h, w, 4], but "
        f"{f'{one.dtype} {list(one.shape)}' if is_array else type(one).__name__}."
    )


def _state(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Returns facts about a file that change when the file does; () if it does not exist."""
    try:
        status = Path(path).expanduser().stat()
    except (OSError, RuntimeError, ValueError):
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev


@functools.lru_cache(maxsize=_FILES_KEPT)
def _of_file(path: str, state: tuple[int, ...], image_shape: tuple[int, ...]) -> np.ndarray:
    """Returns the pixels of a file in this state; those of the last files are stored."""
    del state
    return decode(_contents(path), image_shape, path)


def _contents(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise type(error)(f"{os.fspath(path)} cannot be read ({error.strerror})") from error
    except (RuntimeError, ValueError) as error:  # no such home folder, or not a path
        raise UnreadableImageError(f"{os.fspath(path)!r} is no path ({error})") from error


def _of_array(array: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Returns the pixels of an array [h, w, c] of levels, as for a picture."""
    array = array if array.dtype == np.uint8 else np.rint(array).astype(np.uint8)
    picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    return squeeze(plain_image(picture), image_shape)


def _name(one: Any, place: int) -> str:
    is_path = isinstance(one, (str, os.PathLike))
    return os.fspath(one) if is_path else f"image {place}"


def _place(place: int) -> str:
    return f"image {place} of the list"
