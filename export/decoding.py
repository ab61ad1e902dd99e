"""From an image file to pixels, the one way: for training, for classifiers and for clients.

    file -> decoded -> 8 bits -> on white -> upright -> gray or color -> squeezed to size

- Of an animation the first frame counts, of a picture with several sizes or views the first one.
- Whatever is transparent lies on white, and partly transparent is mixed with it.
- Gray of 16 bits is divided by 257 and rounded. A file of 16 bits is taken to use all of them,
  as the PNG standard says: 12 bits in a file of 16 are dark, here and everywhere. Color of 16
  bits loses the lower eight.
- A picture is turned as the orientation in its EXIF entry says; an entry that is damaged turns
  nothing. Color profiles and gamma are not looked at.
- Gray is ITU-R 601 luma of red, green and blue.
- Squeezed, not cropped, by the LANCZOS filter.
- HEIC, which phones make, is read where the package pillow-heif is installed.

Files of any other kind than `FORMATS`, of more than `MAX_PIXELS` pixels or `MAX_SIDE` in a row, of
more than `MAX_SCANS` passes (a JPEG can be made to take hours), or damaged in any way, are refused.
`serving/pictures.py` has the same steps in TensorFlow's operations, for clients without Python.

This file lies in `tf_metalstm/data/sources` and in `export`, in both the same: what is in
`export` must not need the package.
"""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
"""Kinds of files that are read. Pillow knows more, among them those that start other programs."""

MAX_PIXELS = 100_000_000
"""Width times height of the largest picture."""

MAX_SIDE = 65_535
"""Width and height of the largest picture: what a JPEG can have."""

MAX_SCANS = 100
"""Passes of the longest JPEG; progressive ones have about ten."""

MAX_BEFORE_FRAME = 2**18
"""Bytes before the first frame of a GIF."""

MAX_PARTS_BEFORE_FRAME = 10_000
"""Parts of them, of up to 255 bytes each: comments in millions of parts take Pillow hours."""

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_ORIENTATION = 0x0112  # in EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TOO_LARGE = (
    f"it has more than {MAX_PIXELS // 10**6} million pixels, or more than {MAX_SIDE} in a row or "
    "column: make it smaller"
)


class UnreadableImageError(ValueError):
    """The bytes are no image, no whole one, or none that can be taken."""


class _RefusedError(ValueError):
    """A picture that is not taken, with the reason in our words."""


def decode_image(encoded: bytes, origin: str) -> Image.Image:
    """Decodes all of an image file.

    Args:
        encoded: the bytes of a file of one of `FORMATS`.
        origin: names the file in the error.

    Returns:
        The picture upright and without transparency, of mode L or RGB, in its own size.

    Raises:
        UnreadableImageError: with the name and the reason.
    """
    try:
        image = open_image(encoded)
        image.load()  # all of it, so that a truncated file is found here
        return plain_image(image, _sample_bits(image, encoded))
    except Exception as error:  # what damage leads to in Pillow is anything, and differs by format
        # Pillow's own words help where it says what is wrong with a file, and not where it trips.
        reason = str(error) if isinstance(error, OSError | _RefusedError) else "it is damaged"
        raise UnreadableImageError(f"{origin} is not a readable image ({reason})") from error


def pixels(encoded: bytes, image_shape: Sequence[int], origin: str) -> np.ndarray:
    """Returns pixels 0 ... 255, uint8 [h, w, c], of an image file of any size.

    Args:
        encoded: the bytes of a file of one of `FORMATS`.
        image_shape: (h, w, c), c 1 (gray) or 3 (color).
        origin: names the file in the error.

    Raises:
        UnreadableImageError: with the name and the reason.
    """
    return squeeze(decode_image(encoded, origin), image_shape)


def squeeze(image: Image.Image, image_shape: Sequence[int]) -> np.ndarray:
    """Returns pixels 0 ... 255, uint8 [h, w, c], of a picture as `plain_image` returns it."""
    height, width, channels = image_shape
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, channels)


def open_image(encoded: bytes) -> Image.Image:
    """Reads the header of an image file, and refuses what would take memory or time."""
    if not encoded:
        raise _RefusedError("the file is empty")
    if encoded.startswith(b"GIF8") and not _frame_is_near(encoded[:MAX_BEFORE_FRAME]):
        raise _RefusedError("it is a damaged GIF file")
    if _is_heif(encoded) and not _reads_heif():
        raise _RefusedError(
            "it is a HEIC picture, as phones make them: pip install pillow-heif, or save it as JPEG"
        )
    Image.init()  # all plugins, or the formats below would not be known yet
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is another
            image = Image.open(io.BytesIO(encoded), formats=formats)
    except Image.DecompressionBombError as error:
        raise _RefusedError(_TOO_LARGE) from error
    except UnidentifiedImageError as error:
        kinds = f"{', '.join(formats[:-1])} or {formats[-1]}"
        raise _RefusedError(f"it is damaged or no file of the kinds {kinds}") from error
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise _RefusedError(_TOO_LARGE)
    if image.format in ("JPEG", "MPO") and encoded.count(b"\xff\xda") > MAX_SCANS:
        raise _RefusedError(f"it is a JPEG file of more than {MAX_SCANS} passes: save it as PNG")
    return image


def plain_image(image: Image.Image, sample_bits: int = 8) -> Image.Image:
    """Returns a picture of Pillow upright and without transparency, of mode L or RGB.

    Args:
        image: of any mode; it may come from a file or be made in Python.
        sample_bits: of a number in the PNG file that it comes from, 1 ... 16.

    Raises:
        ValueError: its pixels are floating point numbers, or whole ones of 32 bits.
    """
    turn = _TURNS.get(orientation(image))
    if image.mode.startswith(("I", "F")):
        image = _sixteen_to_eight(image)
    else:
        alpha = _alpha_of_one_color(image, sample_bits)
        if alpha is not None:
            image = image.convert("RGB")
            image.putalpha(Image.fromarray(alpha))
        if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
            image = image.convert("LA").convert("RGBA") if image.mode == "La" else image
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    return image.transpose(turn) if turn is not None else image


def orientation(image: Image.Image) -> int:
    """Returns how a picture lies, 1 ... 8 as in EXIF; 1, as it should, unless it says otherwise."""
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damage, see below
            # Not image.getexif(): that would look where no other client does.
            exif.load(image.info.get("exif", b""))
            number = exif.get(_ORIENTATION, 1)
    except Exception:  # a damaged entry, in as many ways as a damaged file
        return 1
    return number if number in _TURNS else 1


def _is_heif(encoded: bytes) -> bool:
    """Whether a file says that it is HEIC or another kind of HEIF; AVIF is none of them."""
    return encoded[4:8] == b"ftyp" and encoded[8:12] in _HEIF_BRANDS


def _reads_heif() -> bool:
    """Lets Pillow read HEIF, if that can be; returns whether it can."""
    if "HEIF" not in Image.OPEN:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError:
            return False
    return True


def _frame_is_near(head: bytes) -> bool:
    """Whether the blocks before the first frame of a GIF end within its head, and are few."""
    flags = head[10] if len(head) > 10 else 0
    at = 13 + (3 << flags % 8 + 1 if flags >= 128 else 0)
    parts = 0
    while at < len(head) and head[at : at + 1] != b",":
        if head[at : at + 1] == b"!":  # an extension: parts that begin with their length
            at += 2
            while at < len(head) and head[at]:
                at += head[at] + 1
                parts += 1
        at += 1
        parts += 1
    return at < len(head) and parts < MAX_PARTS_BEFORE_FRAME


def _sample_bits(image: Image.Image, encoded: bytes) -> int:
    """Returns the bits of a number in a PNG file, which its transparent color is given in."""
    return encoded[24] if image.format == "PNG" else 8


def _sixteen_to_eight(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise _RefusedError("its pixels are floating point numbers: save it with 8 or 16 bits")
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # there it stands for 16 bits
        raise _RefusedError("its pixels are numbers of 32 bits: save it with 8 or 16 bits")
    _refuse_one_color(image.info.get("transparency"))
    values = np.clip(np.asarray(image) / 257.0, 0, 255)
    return Image.fromarray(np.round(values).astype(np.uint8))


def _alpha_of_one_color(image: Image.Image, sample_bits: int) -> np.ndarray | None:
    """Returns the opacity, uint8 [h, w], where one gray or one color is transparent."""
    transparent: Any = image.info.get("transparency")
    if transparent is None or image.mode not in ("1", "L", "RGB"):
        return None
    if image.mode == "RGB":
        if sample_bits == 16:
            _refuse_one_color(transparent)
        seen = np.all(np.asarray(image) == np.array(transparent), axis=-1)
    else:  # Pillow widens gray of 1, 2 or 4 bits to 8, and leaves the transparent one as it is
        seen = np.asarray(image.convert("L")) == transparent * (
            255 // (2 ** min(sample_bits, 8) - 1)
        )
    return np.where(seen, 0, 255).astype(np.uint8)


def _refuse_one_color(transparent: Any) -> None:
    if transparent is not None:
        raise _RefusedError(
            "it is a PNG file of 16 bits with a transparent color: save it with an alpha channel"
        )
