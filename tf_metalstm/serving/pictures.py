"""Image files as numbers, inside the graph: what a client sends that has no image library.

The steps are those that prepare training images: whatever is transparent on white, gray or
color, squeezed to size by the LANCZOS filter, rounded to whole numbers. What comes out differs
from what Pillow makes by a level or two of 255. Not done: to turn a picture by its EXIF entry, and
to read more than the first frame of an animation. What TensorFlow's decoders would read wrongly
is refused: BMP files of other than 24 bits, transparent GIF files, and PNG files with one color
that is transparent.
"""

from __future__ import annotations

import tensorflow as tf

from tf_metalstm.episode import Tensor

# Weights of red, green and blue in gray, those of ITU-R 601, as Pillow has them.
_LUMA = (0.299, 0.587, 0.114)


def decode_pictures(encoded: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    """Decodes files and brings them to one size.

    Args:
        encoded: the bytes of JPEG, PNG, GIF or BMP files, strings [B].
        image_shape: (h, w, c), c 1 (gray) or 3 (color).

    Returns:
        Pixels 0 ... 255, whole numbers, float32 [B, h, w, c].

    Raises:
        tf.errors.InvalidArgumentError: when run: something is no image.
    """
    return tf.map_fn(
        lambda one: _decode(one, image_shape),
        encoded,
        fn_output_signature=tf.TensorSpec(image_shape, tf.float32),
    )


def _decode(encoded: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    height, width, channels = image_shape
    with tf.control_dependencies(_checks(encoded)):
        encoded = tf.identity(encoded)
    pixels = tf.cond(
        tf.io.is_jpeg(encoded),
        # Told to be exact it gives the numbers that Pillow does; left alone, up to 7 off.
        lambda: tf.io.decode_jpeg(encoded, channels=0, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=0, expand_animations=False),
    )
    pixels = _on_white(tf.cast(pixels, tf.float32))
    if channels == 1:
        pixels = tf.round(tf.tensordot(pixels, tf.constant(_LUMA), 1))[..., tf.newaxis]
    pixels = _resize(_resize(pixels, tf.shape(pixels)[0], width), height, width)
    return tf.ensure_shape(pixels, image_shape)


def _checks(encoded: Tensor) -> list[Tensor]:
    """Returns assertions that the decoders read this file as it is meant."""
    start = tf.strings.substr(tf.strings.join([encoded, tf.constant(b"\0" * 64)]), 0, 64)

    def begins(text: bytes, at: int = 0) -> Tensor:
        return tf.equal(tf.strings.substr(start, at, len(text)), text)

    def has(text: bytes) -> Tensor:
        return tf.size(tf.strings.split([encoded], text).flat_values) > 1

    is_bmp, is_gif, is_png = begins(b"BM"), begins(b"GIF8"), begins(b"\x89PNG")
    # The flag of a transparent color is the last bit of a frame's control block; the first counts.
    control = tf.strings.split([encoded], b"\x21\xf9\x04", maxsplit=1).flat_values[-1]
    flags = tf.io.decode_raw(tf.strings.substr(tf.strings.join([control, b"\0"]), 0, 1), tf.uint8)
    has_mask = has(b"\x21\xf9\x04") & tf.equal(flags[0] % 2, 1)
    without_alpha = begins(b"\0", at=25) | begins(b"\2", at=25)  # gray, or red, green and blue
    advice = "save it as PNG with an alpha channel"
    wrong = [
        (is_bmp & ~begins(b"\x18\0", at=28), "a BMP file of other than 24 bits: save it as PNG"),
        (is_gif & has_mask, f"a GIF file with a transparent color: {advice}"),
        (is_png & without_alpha & has(b"tRNS"), f"a PNG file with a transparent color: {advice}"),
    ]
    return [tf.debugging.Assert(~found, [f"cannot be read: {what}"]) for found, what in wrong]


def _resize(pixels: Tensor, height: Tensor, width: Tensor) -> Tensor:
    # Pillow goes first along the rows, then down the columns, and cuts off what the filter
    # overshoots at edges after either.
    method = tf.image.ResizeMethod.LANCZOS3
    pixels = tf.image.resize(pixels, tf.stack([height, width]), method=method, antialias=True)
    return tf.round(tf.clip_by_value(pixels, 0.0, 255.0))


def _on_white(pixels: Tensor) -> Tensor:
    """Returns red, green and blue [H, W, 3] of gray or color, with transparency or without."""
    shape = tf.shape(pixels)
    has_alpha = tf.equal(shape[-1] % 2, 0)  # two channels, or four
    opacity = tf.where(has_alpha, pixels[..., -1:] / 255.0, 1.0)
    color = pixels[..., : shape[-1] - tf.cast(has_alpha, tf.int32)]
    color = tf.round(color * opacity + 255.0 * (1.0 - opacity))
    return tf.broadcast_to(color, tf.stack([shape[0], shape[1], 3]))
