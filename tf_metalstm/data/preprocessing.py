"""Normalization and augmentation of pixels, before the network gets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_metalstm.data.affine import KOCH, SANTORO, distort
from tf_metalstm.data.color import color_jitter
from tf_metalstm.data.sources.base import Source
from tf_metalstm.episode import Tensor

NORMALIZATIONS = ("standard", "unit", "inverted", "pixels")
AUGMENTATIONS = ("flip", "crop", "turn", "color", "affine", "tilt")

_DISTORTIONS = {"affine": KOCH, "tilt": SANTORO}

# The crop may shift an image by this fraction of its size: 10 pixels of 84, 3 of 28.
_CROP_MARGIN = 0.12


class Normalization(NamedTuple):
    """x -> (x - mean) / deviation, for pixels in 0 ... 255.

    mean: one number for each channel, [c].
    deviation: one number for each channel, [c].
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Returns normalized pixels, float32 [..., w, c]; the input may have any number type."""
        shape = tf.shape(pixels)
        # This works on whole rows of an image. With three numbers at a time it would take five
        # times as long.
        mean, deviation = (
            tf.tile(tf.constant(channel, tf.float32), shape[-2:-1])
            for channel in (self.mean, self.deviation)
        )
        rows = tf.reshape(tf.cast(pixels, tf.float32), tf.concat([shape[:-2], [-1]], axis=0))
        return tf.ensure_shape(tf.reshape((rows - mean) / deviation, shape), pixels.shape)


def make_normalization(name: str, source: Source) -> Normalization:
    """Returns a normalization.

    Args:
        name: "unit" for x / 255, as in the authors' code; "inverted" for 1 - x / 255, so that white
            is 0; "standard" for the mean and deviation of every channel over the training split;
            "pixels" for x unchanged.
        source: the source of the images.
    """
    channels = source.image_shape[-1]
    if name == "unit":
        return Normalization((0.0,) * channels, (255.0,) * channels)
    if name == "inverted":
        return Normalization((255.0,) * channels, (-255.0,) * channels)
    if name == "pixels":
        return Normalization((0.0,) * channels, (1.0,) * channels)
    if name == "standard":
        mean, deviation = source.channel_statistics()
        return Normalization(
            tuple(np.asarray(mean, float).tolist()), tuple(np.asarray(deviation, float).tolist())
        )
    raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {name!r}.")


class Augmentation:
    """Changes the images of an episode at random.

    All except "turn" change each image independently. If they changed all images of a class in the
    same way, the images would have something in common, such as a mirrored border, and training
    would learn that (docs/lab_book/mini_imagenet_classwise.md). "turn" changes all images of a
    class in the same way, because a turned character is another character.

    Args:
        names: any of "flip" (left to right, every other time), "crop" (a window of the
            original size on the image extended by reflection), "turn" (by 0, 90, 180 or 270
            degrees, all as often; of square images only) and "color" (brightness, contrast and
            saturation, `tf_metalstm.data.color`; of color images only), "affine" and "tilt" (the
            distortions of Koch et al. and of Santoro et al., `tf_metalstm.data.affine`).
    """

    def __init__(self, names: Sequence[str]):
        unknown = [name for name in names if name not in AUGMENTATIONS]
        if unknown:
            raise ValueError(
                f"augmentation knows {', '.join(AUGMENTATIONS)}, got {', '.join(unknown)}."
            )
        self.names = tuple(names)

    def __call__(self, pixels: Tensor, seed: Tensor) -> Tensor:
        """Augments the images of an episode [N, B, h, w, c] under a seed [2]."""
        shape, (height, width, channels) = pixels.shape, pixels.shape[2:]
        images = tf.reshape(pixels, [-1, height, width, channels])
        # The row and column from which each pixel comes. Numbers are cheaper to move than pixels.
        number = images.shape[0]
        rows, columns = (tf.tile([tf.range(size)], [number, 1]) for size in (height, width))
        if "flip" in self.names:
            columns = _flip(columns, tf.random.fold_in(seed, tf.constant(0, seed.dtype)))
        if "crop" in self.names:
            key = tf.random.fold_in(seed, tf.constant(1, seed.dtype))
            rows, columns = _crop(rows, columns, key)
            images = tf.gather(images, rows, axis=1, batch_dims=1)
        if "flip" in self.names or "crop" in self.names:
            images = tf.gather(images, columns, axis=2, batch_dims=1)
        if "color" in self.names:
            images = color_jitter(images, tf.random.fold_in(seed, tf.constant(3, seed.dtype)))
        for stream, (name, distortion) in enumerate(_DISTORTIONS.items(), start=4):
            if name in self.names:
                key = tf.random.fold_in(seed, tf.constant(stream, seed.dtype))
                images = distort(images, distortion, key)
        pixels = tf.reshape(images, shape)
        if "turn" in self.names:
            pixels = _turn(pixels, tf.random.fold_in(seed, tf.constant(2, seed.dtype)))
        return pixels


def _flip(columns: Tensor, seed: Tensor) -> Tensor:
    """Mirrors the columns [B, w] of each image with probability 1/2."""
    mirrored = tf.random.stateless_uniform([columns.shape[0], 1], seed) < 0.5
    return tf.where(mirrored, columns[:, ::-1], columns)


def _crop(rows: Tensor, columns: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Shifts the rows [B, h] and columns [B, w] of each image at random."""
    margins = [round(axis.shape[1] * _CROP_MARGIN) for axis in (rows, columns)]
    places = tf.constant([2 * margin + 1 for margin in margins], tf.float32)
    corners = tf.random.stateless_uniform([rows.shape[0], 2], seed) * places
    firsts = tf.unstack(tf.cast(corners, tf.int32), axis=1)
    windows = []
    for axis, margin, first in zip((rows, columns), margins, firsts, strict=True):
        extended = tf.pad(axis, [[0, 0], [margin, margin]], mode="REFLECT")
        seen = first[:, tf.newaxis] + tf.range(axis.shape[1])
        windows.append(tf.gather(extended, seen, batch_dims=1))
    return windows[0], windows[1]


def _turn(pixels: Tensor, seed: Tensor) -> Tensor:
    num_classes, _, height, width, _ = pixels.shape
    if height != width:
        raise ValueError(
            f"augmentation=turn needs square images, these are {height} x {width}: leave it out."
        )
    times = tf.random.stateless_uniform([num_classes], seed, 0, 4, tf.int32)
    turned = [tf.image.rot90(pixels[i], times[i]) for i in range(num_classes)]
    return tf.ensure_shape(tf.stack(turned), pixels.shape)
