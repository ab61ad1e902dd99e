"""Tests random affine distortions by hand, against NumPy, and within their bounds."""

import numpy as np
import tensorflow as tf

from tf_metalstm.data.affine import KOCH, SANTORO, Distortion, Drawn, distort, draw
from tf_metalstm.data.affine import inverse_transforms as transforms
from tf_metalstm.data.preprocessing import Augmentation

SEED = tf.constant([3, 4], tf.int64)
NOTHING = Drawn(tf.zeros([1]), tf.zeros([1, 2]), tf.ones([1, 2]), tf.zeros([1, 2]))


def test_no_change_is_the_identity():
    np.testing.assert_allclose(transforms(NOTHING, 7, 9)[0], [1, 0, 0, 0, 1, 0, 0, 0], atol=1e-5)


def test_a_shift_takes_pixels_from_the_other_side():
    """With a shift of 2 of 8 columns to the right, column x comes from column x - 2."""
    moved = NOTHING._replace(shift=tf.constant([[0.25, 0.0]]))
    np.testing.assert_allclose(transforms(moved, 8, 8)[0], [1, 0, -2, 0, 1, 0, 0, 0], atol=1e-5)


def test_where_a_pixel_comes_from_is_the_inverse_of_the_map():
    drawn = Drawn(*(tf.constant(x) for x in ([0.3], [[0.2, -0.1]], [[1.1, 0.9]], [[0.1, -0.2]])))
    a, b, c, d, e, f, *_ = transforms(drawn, 6, 10)[0].numpy()
    x, y = 2.0, 3.0
    source = np.array([a * x + b * y + c, d * x + e * y + f])
    rotation = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    forward = np.array(rotation) @ [[1, 0.2], [-0.1, 1]] @ np.diag([1.1, 0.9])
    centre = np.array([4.5, 2.5])
    there = forward @ (source - centre) + centre + [0.1 * 10, -0.2 * 6]
    np.testing.assert_allclose(there, [x, y], atol=1e-4)


def test_what_is_drawn_stays_in_its_bounds_and_happens_as_often_as_it_should():
    for distortion in (KOCH, SANTORO):
        drawn = draw(4000, distortion, SEED)
        assert 0.95 * distortion.rotation < np.abs(drawn.rotation).max() <= distortion.rotation
        for values, bound in (
            (drawn.shear, distortion.shear),
            (drawn.scale - 1.0, distortion.scale),
            (drawn.shift, distortion.shift),
        ):
            assert 0.95 * bound <= np.abs(values).max() <= bound + 1e-6
        happens = np.mean(drawn.rotation.numpy() != 0)
        assert abs(happens - distortion.probability) < 0.03


def test_images_are_changed_each_by_itself_and_keep_their_type():
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (6, 12, 12, 1)), tf.uint8)
    images = tf.repeat(images[:1], 6, axis=0)
    changed = distort(images, SANTORO, SEED)
    assert changed.dtype == tf.uint8
    assert len(np.unique(changed.numpy().reshape(6, -1), axis=0)) == 6
    np.testing.assert_array_equal(changed, distort(images, SANTORO, SEED))
    never = Distortion(1.0, 1.0, 0.5, 0.5, 0.0)
    np.testing.assert_array_equal(distort(images, never, SEED), images)


def test_white_paper_stays_white():
    """Pixels from outside the image continue its border."""
    paper = tf.fill([4, 12, 12, 1], tf.constant(255, tf.uint8))
    np.testing.assert_array_equal(distort(paper, KOCH, SEED), paper)


def test_they_are_augmentations_of_an_episode():
    pixels = tf.constant(np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 1)), tf.uint8)
    found = [Augmentation([name])(pixels, SEED).numpy() for name in ("affine", "tilt")]
    assert all(np.mean(one != pixels) > 0.5 for one in found)
    assert np.mean(found[0] != found[1]) > 0.5
