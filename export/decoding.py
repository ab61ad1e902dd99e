"""Converts an image file to pixels, in the same way for training, classifiers and clients.

    file -> decoded -> 8 bits -> on white -> upright -> gray or color -> resized

- Of an animation, or of a file with several sizes or views, the first picture is used.
- Transparent pixels become white. Partly transparent pixels are mixed with white.
- 16-bit gray is divided by 257 and rounded. A 16-bit file is assumed to use all 16 bits, as the PNG
  standard says, so 12-bit data in a 16-bit file becomes dark. For 16-bit color the upper 8 bits are
  used.
- The orientation in the EXIF entry is applied; a damaged entry is ignored. Color profiles and gamma
  are ignored.
- Gray is the ITU-R 601 luma of red, green and blue.
- Pictures are resized with the LANCZOS filter. They are not cropped.
- HEIC files of phones are read if the package pillow-heif is installed.

Some files are refused: kinds of files not in `FORMATS`, more than `MAX_PIXELS` pixels, more than
`MAX_SIDE` pixels in a row or column, more than `MAX_SCANS` passes (a JPEG can be made to take
hours), and damaged files. `serving/pictures.py` has the same steps with TensorFlow's operations,
for clients without Python.

`tf_metalstm/data/sources` and `export` have the same copy of this file, because the programs in
`export` must work without the package.
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
"""Kinds of files that are read. Pillow reads more kinds; for some it starts other programs."""

MAX_PIXELS = 100_000_000
"""Width times height of the largest picture."""

MAX_SIDE = 65_535
"""Largest width and height, as in the JPEG standard."""

MAX_SCANS = 100
"""Largest number of passes of a JPEG; progressive files have about ten."""

MAX_BEFORE_FRAME = 2**18
"""Largest number of bytes before the first frame of a GIF."""

MAX_PARTS_BEFORE_FRAME = 10_000
"""Largest number of parts (of up to 255 bytes) before it; Pillow takes hours for millions."""

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
    """The bytes are not an image, are incomplete, or are of a kind that is refused."""


class _RefusedError(ValueError):
    """A picture is refused; the message is the reason."""


def decode_image(encoded: bytes, origin: str) -> Image.Image:
    """Returns the decoded picture of an image file.

    Args:
        encoded: the bytes of a file of one of `FORMATS`.
        origin: name of the file, for the error.

    Returns:
        The picture, upright and without transparency, in mode L or RGB, in its own size.

    Raises:
        UnreadableImageError: the file cannot be read; the error has the name and the reason.
    """
    try:
        image = open_image(encoded)
        image.load()  # decodes everything, so that a truncated file raises an error
        return plain_image(image, _sample_bits(image, encoded))
    except Exception as error:  # damaged files can raise any error in Pillow
        # The message of an OSError says what is wrong with the file. Other messages do not help.
        reason = str(error) if isinstance(error, OSError | _RefusedError) else "it is damaged"
        raise UnreadableImageError(f"{origin} is not a readable image ({reason})") from error


def pixels(encoded: bytes, image_shape: Sequence[int], origin: str) -> np.ndarray:
    """Returns pixels 0 ... 255, uint8 [h, w, c], of an image file of any size.

    Args:
        encoded: the bytes of a file of one of `FORMATS`.
        image_shape: (h, w, c), c 1 (gray) or 3 (color).
        origin: name of the file, for the error.

    Raises:
        UnreadableImageError: the file cannot be read; the error has the name and the reason.
    """
    return squeeze(decode_image(encoded, origin), image_shape)


def squeeze(image: Image.Image, image_shape: Sequence[int]) -> np.ndarray:
    """Returns pixels 0 ... 255, uint8 [h, w, c], of a picture that `plain_image` returned."""
    height, width, channels = image_shape
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, channels)


def open_image(encoded: bytes) -> Image.Image:
    """Returns a picture with only its header read; refuses files that need much memory or time."""
    if not encoded:
        raise _RefusedError("the file is empty")
    if encoded.startswith(b"GIF8") and not _frame_is_near(encoded[:MAX_BEFORE_FRAME]):
        raise _RefusedError("it is a damaged GIF file")
    if _is_heif(encoded) and not _reads_heif():
        raise _RefusedError(
            "it is a HEIC picture, as phones make them: pip install pillow-heif, or save it as JPEG"
        )
    Image.init()  # loads all plugins, so that Image.OPEN has all formats
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is below
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
    """Returns a picture upright and without transparency, in mode L or RGB.

    Args:
        image: a picture of Pillow in any mode, from a file or made in Python.
        sample_bits: bits of each number in its PNG file, 1 ... 16.

    Raises:
        ValueError: the pixels are floating point numbers or 32-bit integers.
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
    """Returns the orientation of a picture, 1 ... 8 as in EXIF; 1 (upright) if there is none."""
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hides warnings about damaged entries
            # image.getexif() would also search entries that the other clients do not read.
            exif.load(image.info.get("exif", b""))
            number = exif.get(_ORIENTATION, 1)
    except Exception:  # damaged entries can raise any error
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
    """Returns whether the first frame of a GIF begins within its head, after few blocks."""
    flags = head[10] if len(head) > 10 else 0
    at = 13 + (3 << flags % 8 + 1 if flags >= 128 else 0)
    parts = 0
    while at < len(head) and head[at : at + 1] != b",":
        if head[at : at + 1] == b"!":  # an extension; each of its parts begins with its length
            at += 2
            while at < len(head) and head[at]:
                at += head[at] + 1
                parts += 1
        at += 1
        parts += 1
    return at < len(head) and parts < MAX_PARTS_BEFORE_FRAME


def _sample_bits(image: Image.Image, encoded: bytes) -> int:
    """Returns the bits of each number in a PNG file; its transparent color has as many."""
    return encoded[24] if image.format == "PNG" else 8


def _sixteen_to_eight(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise _RefusedError("its pixels are floating point numbers: save it with 8 or 16 bits")
    if image.mode == "I" and image.format not in ("PNG", "PPM"):  # for these, "I" is 16 bits
        raise _RefusedError("its pixels are numbers of 32 bits: save it with 8 or 16 bits")
    _refuse_one_color(image.info.get("transparency"))
    values = np.clip(np.asarray(image) / 257.0, 0, 255)
    return Image.fromarray(np.round(values).astype(np.uint8))


def _alpha_of_one_color(image: Image.Image, sample_bits: int) -> np.ndarray | None:
    """Returns the opacity, uint8 [h, w], if one gray or one color is transparent, else None."""
    transparent: Any = image.info.get("transparency")
    if transparent is None or image.mode not in ("1", "L", "RGB"):
        return None
    if image.mode == "RGB":
        if sample_bits == 16:
            _refuse_one_color(transparent)
        seen = np.all(np.asarray(image) == np.array(transparent), axis=-1)
    else:  # Pillow scales gray of 1, 2 or 4 bits to 8 bits, but not the transparent value
        seen = np.asarray(image.convert("L")) == transparent * (
            255 // (2 ** min(sample_bits, 8) - 1)
        )
    return np.where(seen, 0, 255).astype(np.uint8)


def _refuse_one_color(transparent: Any) -> None:
    if transparent is not None:
        raise _RefusedError(
            "it is a PNG file of 16 bits with a transparent color: save it with an alpha channel"
        )
