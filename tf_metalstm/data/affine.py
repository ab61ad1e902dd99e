"""Random affine changes of an image: it is turned, sheared, scaled and shifted about its centre.

    x' = R(rotation) [[1, shear_x], [shear_y, 1]] diag(scale_x, scale_y) x + shift

Koch et al., "Siamese Neural Networks for One-shot Image Recognition", 2015, section 4.1: rotation
in +-10 degrees, shears in +-0.3, scales in 0.8 ... 1.2 and shifts by up to 2 of 105 pixels. Each of
the seven numbers is drawn with probability 1/2. Santoro et al., ICML 2016, section 4.1: rotation in
+-11.25 degrees and a shift by up to 10 of 105 pixels, always.

Pixels from outside the image continue its border.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from tf_metalstm.episode import Tensor


class Distortion(NamedTuple):
    """The bounds of the changes. Each number is drawn uniformly between its bounds.

    rotation: largest rotation in radians, in both directions.
    shear: largest shear, in both directions.
    scale: largest difference of the scale from 1.
    shift: largest shift as a fraction of height and width, in both directions.
    probability: probability that each of the seven numbers is drawn; else it changes nothing.
    """

    rotation: float
    shear: float
    scale: float
    shift: float
    probability: float


KOCH = Distortion(math.radians(10.0), 0.3, 0.2, 2 / 105, 0.5)
SANTORO = Distortion(math.radians(11.25), 0.0, 0.0, 10 / 105, 1.0)


def distort(images: Tensor, distortion: Distortion, seed: Tensor) -> Tensor:
    """Returns images [B, h, w, c], each changed at random, in the same type.

    Args:
        images: images of any number type.
        distortion: the bounds of the changes.
        seed: seed of TensorFlow's stateless generators, [2].
    """
    height, width = images.shape[1:3]
    transforms = inverse_transforms(draw(images.shape[0], distortion, seed), height, width)
    changed = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=transforms,
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    if images.dtype.is_integer:
        changed = tf.round(changed)
    return tf.ensure_shape(tf.cast(changed, images.dtype), images.shape)


class Drawn(NamedTuple):
    """The changes of B images: rotation [B]; shear, scale and shift [B, 2], x first."""

    rotation: Tensor
    shear: Tensor
    scale: Tensor
    shift: Tensor


def draw(number: int, distortion: Distortion, seed: Tensor) -> Drawn:
    """Draws the changes of a number of images."""
    keys = [tf.random.fold_in(seed, tf.constant(i, seed.dtype)) for i in range(2)]
    uniform = tf.random.stateless_uniform([number, 7], keys[0], -1.0, 1.0)
    happens = tf.random.stateless_uniform([number, 7], keys[1]) < distortion.probability
    drawn = tf.where(happens, uniform, 0.0)
    return Drawn(
        distortion.rotation * drawn[:, 0],
        distortion.shear * drawn[:, 1:3],
        1.0 + distortion.scale * drawn[:, 3:5],
        distortion.shift * drawn[:, 5:7],
    )


def inverse_transforms(drawn: Drawn, height: int, width: int) -> Tensor:
    """Returns the transforms of ImageProjectiveTransformV3, from pixels to sources, [B, 8]."""
    cosine, sine = tf.cos(drawn.rotation), tf.sin(drawn.rotation)
    rotation = tf.reshape(tf.stack([cosine, -sine, sine, cosine], axis=1), [-1, 2, 2])
    shear_x, shear_y = tf.unstack(drawn.shear, axis=1)
    one = tf.ones_like(shear_x)
    shear = tf.reshape(tf.stack([one, shear_x, shear_y, one], axis=1), [-1, 2, 2])
    forward = rotation @ shear @ tf.linalg.diag(drawn.scale)
    inverse = tf.linalg.inv(forward)
    centre = tf.constant([(width - 1) / 2, (height - 1) / 2], tf.float32)
    shift = drawn.shift * tf.constant([width, height], tf.float32)
    offset = centre - tf.linalg.matvec(inverse, centre + shift)
    rows = tf.concat([inverse, offset[:, :, tf.newaxis]], axis=2)  # [B, 2, 3]
    return tf.concat([tf.reshape(rows, [-1, 6]), tf.zeros([len(drawn.rotation), 2])], axis=1)
