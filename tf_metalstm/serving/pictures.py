"""Decodes image files inside the graph, so that a client needs no image library.

The steps are those of `data/sources/decoding.py`, which training and all Python clients use: take
the first frame, put it on white, turn it upright, make it gray or color, resize it with the LANCZOS
filter. The pixels differ from those of Pillow by one or two levels of 255. TensorFlow reads fewer
kinds of files. Files that it does not read, or reads wrongly, are refused: see `picture_files.py`.

Memory is bounded for all files: they are decoded one after the other, and pixels are processed in
strips of rows.
"""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.graphs import graph_function
from tf_metalstm.serving.picture_files import PictureFile, inspect

# Weights of red, green and blue in gray: those of ITU-R 601, as in Pillow.
_LUMA = (0.299, 0.587, 0.114)
_STRIP = 2**22  # pixels of a strip
_DAMAGED = "it cannot be decoded: it is damaged, or of a kind that this TensorFlow does not read"


@functools.cache
def picture_decoder(image_shape: tuple[int, ...]) -> Any:
    """Returns a `tf.function` that decodes files and resizes them.

    It has no variables, so all models of a process share its graph, which takes long to trace.

    Args:
        image_shape: (h, w, c), c 1 (gray) or 3 (color).

    Returns:
        A function of the bytes of JPEG, PNG, GIF, BMP or WebP files, strings [B], and of the name
        of the list for errors, a string []. It returns pixels 0 ... 255, whole numbers,
        float32 [B, h, w, c].

    Raises:
        tf.errors.InvalidArgumentError: when run: a file cannot be read. The error has its place in
            the list and the reason, as in "images[3]: the file is empty".
    """

    @graph_function(
        input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([], tf.string)]
    )
    def decode(encoded: Tensor, name: Tensor) -> Tensor:
        files = _inspect_all(encoded)
        with tf.control_dependencies([_no_problem(name, files.problem)]):
            encoded = tf.identity(encoded)
        decoded, pixels = _decode_all(encoded, files, image_shape)
        with tf.control_dependencies([_no_problem(name, tf.where(decoded, "", _DAMAGED))]):
            return tf.identity(pixels)

    return decode


def _no_problem(name: Tensor, problems: Tensor) -> Tensor:
    """Returns an assertion that there are no problems; its error names the first file with one."""
    all_of_them = tf.concat([problems, [tf.constant("")]], 0)  # at least one element
    first = tf.argmax(all_of_them != "")
    message = tf.strings.join([name, "[", tf.as_string(first), "]: ", all_of_them[first]])
    return tf.debugging.Assert(tf.reduce_all(problems == ""), [message])


def _inspect_all(encoded: Tensor) -> PictureFile:
    """Returns the facts in the headers of all files."""
    # Not tf.map_fn: a pipeline is compiled once, not again for every signature.
    with_one_more = tf.concat([encoded, [tf.constant("")]], 0)  # at least one element
    files = tf.data.Dataset.from_tensor_slices(with_one_more).map(inspect)
    facts = files.batch(tf.size(with_one_more, out_type=tf.int64)).get_single_element()
    return PictureFile(*(fact[:-1] for fact in facts))


def _decode_all(
    encoded: Tensor, files: PictureFile, image_shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Returns which files could be decoded, bool [B], and the pixels of these files, in order."""

    def decode(i: Tensor) -> tuple[Tensor, Tensor]:
        file = PictureFile(*(fact[i] for fact in files))
        return i, _decode(encoded[i], file, image_shape)

    # Only a tf.data pipeline continues after a decoder has failed. It ends with a row of
    # zeros, so that there is at least one.
    number = tf.size(encoded, out_type=tf.int64)
    good = tf.data.Dataset.range(number).map(decode).ignore_errors()
    end = tf.data.Dataset.from_tensors((number, tf.zeros(image_shape)))
    places, pixels = good.concatenate(end).batch(number + 1).get_single_element()
    decoded = tf.scatter_nd(places[:, tf.newaxis], tf.ones_like(places), [number + 1])[:-1] > 0
    return decoded, pixels[:-1]


def _decode(encoded: Tensor, file: PictureFile, image_shape: tuple[int, ...]) -> Tensor:
    height, width, channels = image_shape
    encoded = tf.strings.substr(encoded, 0, tf.cast(file.length, tf.int32))
    pixels = tf.switch_case(
        file.kind,
        [
            # With this option the levels are those of Pillow; without it up to 7 levels off.
            lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_png(encoded, channels=3),
            lambda: tf.io.decode_png(encoded, channels=4),
            lambda: _eight_bits(tf.io.decode_png(encoded, channels=1, dtype=tf.uint16)),
            lambda: tf.io.decode_gif(tf.strings.join([encoded, b";"]))[0],  # the end of the file
            lambda: tf.io.decode_bmp(encoded, channels=3),
            lambda: tf.ensure_shape(
                tf.io.decode_image(encoded, expand_animations=False), [None, None, None]
            ),
        ],
    )
    # Before the filter, because its result depends on the order of rows and columns.
    pixels = tf.cond(
        file.orientation > 4, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: tf.identity(pixels)
    )
    pixels = _resize_rows(_narrow(pixels, width, channels), height)
    return tf.ensure_shape(_mirror(pixels, file.orientation), image_shape)


def _eight_bits(pixels: Tensor) -> Tensor:
    return tf.cast(tf.round(tf.cast(pixels, tf.float32) / 257.0), tf.uint8)


def _narrow(pixels: Tensor, width: int, channels: int) -> Tensor:
    """Returns gray or color on white, resized in width: [H, W, 1 ... 4] -> [H, width, c]."""
    shape = tf.shape(pixels)
    rows = tf.maximum(_STRIP // shape[1], 1)
    number = (shape[0] + rows - 1) // rows
    done = tf.TensorArray(tf.float32, number, infer_shape=False, element_shape=[None] * 3)

    def add(i: Tensor, done: tf.TensorArray) -> tuple[Tensor, tf.TensorArray]:
        strip = _on_white(tf.cast(pixels[i * rows : (i + 1) * rows], tf.float32))
        if channels == 1:
            strip = tf.round(tf.tensordot(strip, tf.constant(_LUMA), 1))[..., tf.newaxis]
        # Transposed and resized as rows, which takes a fifth of the time.
        strip = _resize_rows(tf.transpose(strip, [1, 0, 2]), width)
        return i + 1, done.write(i, tf.transpose(strip, [1, 0, 2]))

    _, done = tf.while_loop(lambda i, done: i < number, add, (0, done), parallel_iterations=1)
    return tf.ensure_shape(done.concat(), [None, None, channels])


def _resize_rows(pixels: Tensor, rows: int) -> Tensor:
    """Resizes the height; returns whole numbers.

    Pillow filters first along the rows, then along the columns, and clips values outside 0 ... 255
    after each.
    """
    size = tf.stack([rows, tf.shape(pixels)[1]])
    method = tf.image.ResizeMethod.LANCZOS3
    pixels = tf.image.resize(pixels, size, method=method, antialias=True)
    return tf.round(tf.clip_by_value(pixels, 0.0, 255.0))


def _on_white(pixels: Tensor) -> Tensor:
    """Returns red, green and blue [H, W, 3] of gray or color; transparent pixels are white."""
    shape = tf.shape(pixels)
    has_alpha = tf.equal(shape[-1] % 2, 0)  # two channels, or four
    opacity = tf.where(has_alpha, pixels[..., -1:] / 255.0, 1.0)
    color = pixels[..., : shape[-1] - tf.cast(has_alpha, tf.int32)]
    color = tf.round(color * opacity + 255.0 * (1.0 - opacity))
    return tf.broadcast_to(color, tf.stack([shape[0], shape[1], 3]))


def _mirror(pixels: Tensor, orientation: Tensor) -> Tensor:
    """Mirrors a picture [h, w, c], so that it is upright; it is transposed already if needed."""
    upside_down = tf.reduce_any(orientation == tf.constant([3, 4, 7, 8]))
    mirrored = tf.reduce_any(orientation == tf.constant([2, 3, 6, 7]))
    return tf.raw_ops.Reverse(tensor=pixels, dims=tf.stack([upside_down, mirrored, False]))
