"""Converts encoded images to pixels and back, with the errors of a source.

`decoding.py` has the steps from a file to pixels.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tf_metalstm.data.sources import decoding
from tf_metalstm.data.sources.base import CorruptImageError

# Quality of the JPEG of a resized image. It is so high that the second compression
# is not visible.
_JPEG_QUALITY = 95


def decode_image(encoded: bytes, origin: str) -> Image.Image:
    """Returns the decoded image, upright, without transparency, in mode L or RGB.

    Args:
        encoded: the bytes of an image file.
        origin: name of the file, for the error.

    Raises:
        CorruptImageError: the bytes are not an image, are incomplete, or are of an unsupported
            kind.
    """
    try:
        return decoding.decode_image(encoded, origin)
    except decoding.UnreadableImageError as error:
        raise CorruptImageError(str(error)) from error


def pixels(encoded: bytes, image_shape: Sequence[int], origin: str) -> np.ndarray:
    """Returns pixels 0 ... 255, uint8 [h, w, c], of an image file, resized without cropping.

    Args:
        encoded: the bytes of an image file.
        image_shape: (h, w, c), c 1 (gray) or 3 (color).
        origin: name of the file, for the error.

    Raises:
        CorruptImageError: the bytes are not an image, are incomplete, or are of an unsupported
            kind.
    """
    return decoding.squeeze(decode_image(encoded, origin), image_shape)


def gray_pixels(encoded: bytes, size: int, origin: str) -> np.ndarray:
    """Returns gray pixels, uint8 [size, size, 1], of an image file of any size."""
    return pixels(encoded, (size, size, 1), origin)


def color_pixels(encoded: bytes, size: int, origin: str) -> tuple[np.ndarray, bytes]:
    """Returns color pixels, uint8 [size, size, 3], and a JPEG of them.

    If `encoded` is an upright JPEG of the right size, it is returned unchanged. Any other
    image is resized without cropping, as in the original mini-ImageNet.
    """
    image = pixels(encoded, (size, size, 3), origin)
    if _is_ready(encoded, size):
        return image, encoded
    jpeg = io.BytesIO()
    Image.fromarray(image).save(jpeg, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return image, jpeg.getvalue()


def color_as_stored(encoded: bytes, size: int, origin: str) -> tuple[np.ndarray, bytes]:
    """Returns the pixels of the JPEG that `color_pixels` returns, and this JPEG.

    The pixels differ slightly from those of `color_pixels` if the image was compressed again.
    """
    image, stored = color_pixels(encoded, size, origin)
    if stored is not encoded:
        image, _ = color_pixels(stored, size, origin)
    return image, stored


def gray_as_stored(encoded: bytes, size: int, origin: str) -> tuple[np.ndarray, bytes]:
    """Returns the resized gray pixels, uint8 [size, size, 1], and the same as PNG."""
    image = gray_pixels(encoded, size, origin)
    return image, encode_png(image)


def encode_png(pixels: np.ndarray) -> bytes:
    """Returns a PNG of gray pixels, uint8 [h, w, 1]."""
    png = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(png, format="PNG")
    return png.getvalue()


def _is_ready(encoded: bytes, size: int) -> bool:
    """Returns whether a file is an upright JPEG of the right size, so that it can be stored."""
    image = decoding.open_image(encoded)
    plain = image.format == "JPEG" and image.mode in ("RGB", "L")
    return plain and image.size == (size, size) and decoding.orientation(image) == 1
