"""Colour jitter: random changes of the brightness, contrast and saturation of an image.

Three factors b, c, s are drawn for each image, uniform in 1 - 0.4 ... 1 + 0.4 as in the code of
Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019. They are applied in its order:

    brightness   y = b x
    contrast     z = c y + (1 - c) mean(g(y))        the mean over the image
    saturation   w = s z + (1 - s) g(z)

with the grey value g(x) = 0.299 red + 0.587 green + 0.114 blue. g is linear and does not change
grey values. So the three steps are equal to one,

    w = b (c (s x + (1 - s) g(x)) + (1 - c) mean(g(x)))

Afterwards values are clipped to 0 ... 255. The authors' code clips after each of the three steps.
"""

from __future__ import annotations

import tensorflow as tf

from tf_metalstm.episode import Tensor

STRENGTH = 0.4
"""Each factor is uniform in 1 - STRENGTH ... 1 + STRENGTH."""

# Weights of red, green and blue in a grey value, ITU-R BT.601.
_GREY = (0.299, 0.587, 0.114)


def color_jitter(images: Tensor, seed: Tensor) -> Tensor:
    """Returns images, uint8 [B, h, w, 3], with random changes of colour.

    Args:
        images: uint8 [B, h, w, 3].
        seed: seed of a stateless generator, [2].

    Raises:
        ValueError: the images do not have three channels.
    """
    channels = images.shape[-1]
    if channels != 3:
        raise ValueError(
            f"augmentation=color needs images with red, green and blue, but these have {channels} "
            f"channel{'s' if channels != 1 else ''}: leave it out."
        )
    number = tf.shape(images)[0]
    factors = tf.random.stateless_uniform([number, 3], seed, 1.0 - STRENGTH, 1.0 + STRENGTH)
    return apply_factors(images, factors)


def apply_factors(images: Tensor, factors: Tensor) -> Tensor:
    """Returns images, uint8 [B, h, w, 3], changed by the factors b, c, s of each image, [B, 3]."""
    # The factors are [B, 1, 1], the pixels [B, h w, 3]. A matrix [B, 3, 3] changes the saturation.
    brightness, contrast, saturation = tf.unstack(factors[:, :, tf.newaxis, tf.newaxis], axis=1)
    shape = tf.shape(images)
    pixels = tf.reshape(tf.cast(images, tf.float32), [shape[0], shape[1] * shape[2], 3])
    grey = tf.constant(_GREY)[:, tf.newaxis]  # g(x) = x grey
    mean = tf.reduce_mean(pixels, axis=1, keepdims=True) @ grey
    matrix = saturation * tf.eye(3) + (1.0 - saturation) * tf.tile(grey, [1, 3])
    changed = brightness * (contrast * (pixels @ matrix) + (1.0 - contrast) * mean)
    return tf.saturate_cast(tf.round(tf.reshape(changed, shape)), images.dtype)
