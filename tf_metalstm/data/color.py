"""Colour jitter: the brightness, contrast and saturation of an image, changed at random.

Three factors b, c, s are drawn for each image by itself, uniform in 1 - 0.4 ... 1 + 0.4 as in the
code of Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019. In its order:

    brightness   y = b x
    contrast     z = c y + (1 - c) mean(g(y))        the mean over the image
    saturation   w = s z + (1 - s) g(z)

with the grey value g(x) = 0.299 red + 0.587 green + 0.114 blue. As g is linear and leaves a grey
value as it is, this is one step,

    w = b (c (s x + (1 - s) g(x)) + (1 - c) mean(g(x)))

after which values are cut off at 0 and 255. The authors' code cuts off after each of the three.
"""

from __future__ import annotations

import tensorflow as tf

from tf_metalstm.episode import Tensor

STRENGTH = 0.4
"""Each factor is uniform in 1 - this ... 1 + this."""

# Of red, green and blue in a grey value, ITU-R BT.601.
_GREY = (0.299, 0.587, 0.114)


def color_jitter(images: Tensor, seed: Tensor) -> Tensor:
    """Returns images [B, h, w, 3] of bytes with other colours, under a seed [2].

    Raises:
        ValueError: the images are not of red, green and blue.
    """
    channels = images.shape[-1]
    if channels != 3:
        raise ValueError(
            f"augmentation=color needs images of red, green and blue, these have {channels} "
            f"channel{'s' if channels != 1 else ''}: leave it out."
        )
    number = tf.shape(images)[0]
    factors = tf.random.stateless_uniform([number, 3], seed, 1.0 - STRENGTH, 1.0 + STRENGTH)
    return apply_factors(images, factors)


def apply_factors(images: Tensor, factors: Tensor) -> Tensor:
    """Returns images [B, h, w, 3] of bytes under factors b, c, s of each, [B, 3]."""
    # As [B, 1, 1] each; the image is [B, h w, 3], and the step a product with a matrix [B, 3, 3].
    brightness, contrast, saturation = tf.unstack(factors[:, :, tf.newaxis, tf.newaxis], axis=1)
    shape = tf.shape(images)
    pixels = tf.reshape(tf.cast(images, tf.float32), [shape[0], shape[1] * shape[2], 3])
    grey = tf.constant(_GREY)[:, tf.newaxis]  # g(x) = x grey
    mean = tf.reduce_mean(pixels, axis=1, keepdims=True) @ grey
    matrix = saturation * tf.eye(3) + (1.0 - saturation) * tf.tile(grey, [1, 3])
    changed = brightness * (contrast * (pixels @ matrix) + (1.0 - contrast) * mean)
    return tf.saturate_cast(tf.round(tf.reshape(changed, shape)), images.dtype)
