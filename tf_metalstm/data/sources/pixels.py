"""Encoded images to pixels and back, with every damaged image found on the way."""

import io

import numpy as np
from PIL import Image

from tf_metalstm.data.sources.base import CorruptImageError

# What Pillow raises for bytes that are not an image, or only half of one.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)

# Quality of the JPEG that replaces an image which had to be resized: high
# enough that a second compression does not show.
_JPEG_QUALITY = 95


def open_image(encoded: bytes, origin: str) -> Image.Image:
    """Decodes all of an image, so that a truncated one is found here and not later.

    Args:
        encoded: the bytes of an image file of any format that Pillow knows.
        origin: names the file in the error.

    Raises:
        CorruptImageError: the bytes are not a whole image.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except _DAMAGED as error:
        raise CorruptImageError(f"{origin} is not a readable image ({error})") from error
    return image


def gray_pixels(encoded: bytes, size: int, origin: str) -> np.ndarray:
    """Gray pixels, uint8 [size, size, 1], of an image file of any size."""
    gray = open_image(encoded, origin).convert("L")
    if gray.size != (size, size):
        gray = gray.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(gray)[..., np.newaxis]


def color_pixels(encoded: bytes, size: int, origin: str) -> tuple[np.ndarray, bytes]:
    """Color pixels, uint8 [size, size, 3], and a JPEG of them.

    The JPEG is `encoded` itself when that is one of the right size; an image of
    another size is squeezed, not cropped, as in the original mini-ImageNet.
    """
    image = open_image(encoded, origin)
    if image.format == "JPEG" and image.size == (size, size) and image.mode in ("RGB", "L"):
        return np.asarray(image.convert("RGB")), encoded
    resized = image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    resized.save(jpeg, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return np.asarray(resized), jpeg.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG of gray pixels, uint8 [h, w, 1]."""
    png = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(png, format="PNG")
    return png.getvalue()
