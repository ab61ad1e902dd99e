"""Tests batches over all classes: each image once a pass, a pure function of (seed, number)."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.joint import JointBatches
from tf_metalstm.data.preprocessing import Augmentation, Normalization
from tf_metalstm.data.sources.base import ClassImages

CLASSES = toy.glyph_like_classes(num_classes=3, images_per_class=7)  # 21 images
PIXELS = Normalization((0.0,), (1.0,))


def batches(batch_size=4, seed=0, augmentation=None):
    return JointBatches(CLASSES, batch_size, PIXELS, augmentation, seed)


def rows(of, numbers):
    return [of.rows(tf.constant(number)).numpy().tolist() for number in numbers]


def test_a_pass_takes_no_image_twice_and_the_next_has_another_order():
    first, second = rows(batches(), range(5)), rows(batches(), range(5, 10))
    for a_pass in (first, second):
        taken = [row for batch in a_pass for row in batch]
        assert len(set(taken)) == len(taken) == 20  # a last batch of one image is left out
        assert set(taken) < set(range(21))
    assert first != second


def test_images_belong_to_their_labels_and_there_is_no_support():
    inputs, labels = batches()(tf.constant(3))
    assert inputs["support_inputs"].shape == (0, 16, 16, 1)
    assert inputs["support_labels"].shape == (0,)
    for image, label in zip(inputs["query_inputs"].numpy(), labels.numpy(), strict=True):
        of_class = CLASSES.images[7 * label : 7 * (label + 1)]
        assert (of_class == image).all(axis=(1, 2, 3)).any()


def test_a_batch_is_a_function_of_seed_and_number():
    assert rows(batches(), [8]) == rows(batches(), [8])
    assert rows(batches(seed=1), [8]) != rows(batches(), [8])
    late = next(iter(episode_dataset(batches(), start=8)))
    np.testing.assert_array_equal(late[0]["query_inputs"][0], batches()(8)[0]["query_inputs"])
    assert batches().fingerprint(3) == batches().fingerprint(3) != batches(seed=1).fingerprint(3)


def test_each_image_is_augmented_by_itself():
    plain, flipped = batches(8), batches(8, augmentation=Augmentation(["flip"]))
    same = []
    for one, other in zip(plain(0)[0]["query_inputs"], flipped(0)[0]["query_inputs"], strict=True):
        same.append(bool(np.array_equal(one, other)))
        np.testing.assert_array_equal(other, one if same[-1] else one[:, ::-1])
    assert set(same) == {True, False}


@pytest.mark.parametrize("names", [["flip"], ["flip", "crop"]])
def test_a_stream_augments_as_a_single_batch_is(names):
    """A stream is a graph, so shapes must be known before the first batch exists."""
    of = batches(8, augmentation=Augmentation(names))
    streamed = next(iter(episode_dataset(of, start=1)))[0]["query_inputs"][0]
    np.testing.assert_array_equal(streamed, of(1)[0]["query_inputs"])


def test_a_turned_image_would_keep_its_label():
    with pytest.raises(ValueError, match=r"^augmentation=turn makes new classes"):
        batches(augmentation=Augmentation(["flip", "turn"]))


@pytest.mark.parametrize("batch_size", [0, 22])
def test_batches_of_impossible_size_are_refused(batch_size):
    with pytest.raises(ValueError, match=r"^joint_batch_size must be between 1 and the 21 images"):
        batches(batch_size)


@pytest.fixture(scope="module")
def passes():
    """Returns the images in the batches of three passes, [3, 600, 64]."""
    images = np.zeros((38_400, 1, 1, 1), np.uint8)
    many = JointBatches(ClassImages(images, np.array([38_400]), ("one",)), 64, PIXELS)
    numbers = tf.range(3 * 600, dtype=tf.int64)
    rows_of = tf.function(lambda: tf.map_fn(many.rows, numbers, fn_output_signature=tf.int32))
    return rows_of().numpy().reshape(3, 600, 64)


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (1, 2)])
def test_images_of_one_batch_meet_in_another_pass_as_often_as_by_chance(passes, one, other):
    """Expects n (B - 1)^2 / 2 (n - 1) = 1,985 +- 45 pairs; a worse shuffle had 2,743."""
    batch_of = [np.argsort(passes[number].ravel()) // 64 for number in (one, other)]
    together = np.bincount(batch_of[0] * 600 + batch_of[1])
    assert abs((together * (together - 1) // 2).sum() - 1985) < 5 * 45


def test_no_distance_between_neighbours_of_a_pass_is_common(passes):
    """There are 38,400 distances, about two for each value. 16 of one value would be a pattern."""
    distances = np.abs(np.diff(passes.reshape(3, -1), axis=1))
    assert max(np.bincount(of_pass).max() for of_pass in distances) < 16


def test_the_order_stays_as_it_is():
    """The order stays fixed, or a run that is continued would train on other batches."""
    assert rows(batches(), [0, 1, 6]) == [[1, 12, 7, 13], [5, 3, 19, 0], [16, 9, 3, 7]]
