"""Tests colour jitter against Pillow and by hand, and which factors are drawn for an image."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from tf_metalstm.data.color import STRENGTH, apply_factors
from tf_metalstm.data.preprocessing import Augmentation

SEED = tf.constant([1, 2], tf.int64)


def changed(images, *factors):
    found = apply_factors(tf.constant(images), tf.constant([factors] * len(images), tf.float32))
    assert found.dtype == tf.uint8
    return found.numpy().astype(int)


@pytest.mark.parametrize(
    "factors", [(0.7, 1, 1), (1, 1.3, 1), (1, 0.7, 1), (1, 1, 1.4), (1, 1, 0.6), (0.8, 1.2, 0.7)]
)
def test_the_three_steps_are_those_of_pillow(factors):
    """Pillow rounds after each step, so values may differ by 1. No value is clipped here."""
    image = np.random.default_rng(0).integers(90, 160, (8, 9, 3)).astype(np.uint8)
    expected = Image.fromarray(image)
    steps = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for step, factor in zip(steps, factors, strict=True):
        expected = step(expected).enhance(factor)
    difference = changed(image[np.newaxis], *factors)[0] - np.asarray(expected, int)
    assert np.abs(difference).max() <= 3
    assert np.ptp(difference) <= 3


def test_by_hand():
    """The grey values are 29.9 and 0, b = 1.2, c = 0.5. Their mean 14.95 counts 0.5 x 1.2."""
    image = np.array([[[[100, 0, 0], [0, 0, 0]]]], np.uint8)
    assert changed(image, 1, 1, 1).tolist() == image.tolist()
    assert changed(image, 1, 1, 0.6)[0, 0].tolist() == [[72, 12, 12], [0, 0, 0]]  # 0.4 x 29.9 = 12
    assert changed(image, 1.2, 0.5, 1)[0, 0].tolist() == [[69, 9, 9], [9, 9, 9]]


def test_what_would_be_brighter_than_white_is_white():
    image = np.array([[[[250, 10, 250], [0, 0, 0]]]], np.uint8)
    brighter = changed(image, 1.4, 1.4, 1.4)[0, 0]
    assert brighter[0].tolist() == [255, 0, 255]


def test_each_image_has_factors_of_its_own():
    """For a grey image only the brightness has an effect: 100 b, with b uniform in 0.6 ... 1.4."""
    pixels = tf.fill([20, 10, 2, 2, 3], tf.constant(100, tf.uint8))
    found = Augmentation(["color"])(pixels, SEED).numpy().reshape(200, -1).astype(int)
    assert (found == found[:, :1]).all()
    brightness = found[:, 0] / 100
    assert brightness.min() >= 1 - STRENGTH
    assert brightness.max() <= 1 + STRENGTH
    assert np.std(brightness) == pytest.approx(2 * STRENGTH / np.sqrt(12), rel=0.15)
    again = Augmentation(["color"])(pixels, SEED).numpy().reshape(200, -1)
    np.testing.assert_array_equal(again, found)


def test_it_leaves_what_the_others_draw_alone():
    """With colour jitter, flips and crops are the same as without it."""
    image = np.zeros([9, 9, 3], np.uint8)
    image[2, 1] = 90
    pixels = tf.constant(np.broadcast_to(image, (4, 5, 9, 9, 3)))
    plain, colored = (
        Augmentation(names)(pixels, SEED).numpy().argmax(axis=2).argmax(axis=2)
        for names in (["flip", "crop"], ["flip", "crop", "color"])
    )
    np.testing.assert_array_equal(plain, colored)


def test_gray_images_have_no_colours():
    with pytest.raises(
        ValueError, match="images with red, green and blue, but these have 1 channel: le"
    ):
        Augmentation(["color"])(tf.zeros([1, 1, 4, 4, 1], tf.uint8), SEED)
