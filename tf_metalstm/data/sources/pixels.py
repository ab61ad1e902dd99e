"""Encoded images to pixels and back, with every damaged image found on the way.

How a file becomes pixels is in `decoding.py`; here it speaks as a source does.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from tf_metalstm.data.sources import decoding
from tf_metalstm.data.sources.base import CorruptImageError

# Quality of the JPEG that replaces an image which had to be resized: high
# enough that a second compression does not show.
_JPEG_QUALITY = 95


def decode_image(encoded: bytes, origin: str) -> Image.Image:
    """Decodes all of an image file; upright, without transparency, of mode L or RGB.

    Args:
        encoded: the bytes of an image file.
        origin: names the file in the error.

    Raises:
        CorruptImageError: the bytes are no image, no whole one, or none that can be taken.
    """
    try:
        return decoding.decode_image(encoded, origin)
    except decoding.UnreadableImageError as error:
        raise CorruptImageError(str(error)) from error


def pixels(encoded: bytes, image_shape: Sequence[int], origin: str) -> np.ndarray:
    """Pixels 0 ... 255, uint8 [h, w, c], of an image file of any size, squeezed to size.

    Args:
        encoded: the bytes of an image file.
        image_shape: (h, w, c), c 1 (gray) or 3 (color).
        origin: names the file in the error.

    Raises:
        CorruptImageError: the bytes are no image, no whole one, or none that can be taken.
    """
    return decoding.squeeze(decode_image(encoded, origin), image_shape)


def gray_pixels(encoded: bytes, size: int, origin: str) -> np.ndarray:
    """Gray pixels, uint8 [size, size, 1], of an image file of any size."""
    return pixels(encoded, (size, size, 1), origin)


def color_pixels(encoded: bytes, size: int, origin: str) -> tuple[np.ndarray, bytes]:
    """Color pixels, uint8 [size, size, 3], and a JPEG of them.

    The JPEG is `encoded` itself when that is one of the right size that lies as it
    should; an image of another size is squeezed, not cropped, as in the original
    mini-ImageNet.
    """
    image = pixels(encoded, (size, size, 3), origin)
    if _is_ready(encoded, size):
        return image, encoded
    jpeg = io.BytesIO()
    Image.fromarray(image).save(jpeg, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return image, jpeg.getvalue()


def color_as_stored(encoded: bytes, size: int, origin: str) -> tuple[np.ndarray, bytes]:
    """As `color_pixels`, the pixels being those of the JPEG: a second compression moves them."""
    found, stored = color_pixels(encoded, size, origin)
    if stored is not encoded:
        found, _ = color_pixels(stored, size, origin)
    return found, stored


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG of gray pixels, uint8 [h, w, 1]."""
    png = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(png, format="PNG")
    return png.getvalue()


def _is_ready(encoded: bytes, size: int) -> bool:
    """Whether decoding this file as a plain JPEG gives what `color_pixels` returns."""
    image = decoding.open_image(encoded)
    plain = image.format == "JPEG" and image.mode in ("RGB", "L")
    return plain and image.size == (size, size) and decoding.orientation(image) == 1
