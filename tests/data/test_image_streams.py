"""Tests streams of images: delayed labels, random order, fixed lists."""

import numpy as np
import tensorflow as tf
import toy

from tf_metalstm.data.streams import StreamOptions, showings
from tf_metalstm.showings import AccuracyByShowing


def tasks():
    options = StreamOptions(num_way=3, num_showings=4, normalization="inverted")
    return toy.ToyStream.from_options(options)


def test_each_class_is_shown_equally_often_and_its_label_comes_a_step_late():
    streams = tasks().episodes("test", 0)
    orders = set()
    for index in range(6):
        inputs, labels = streams(tf.constant(index, tf.int64))
        assert inputs["images"].shape == (12, 16, 16, 1)
        assert np.bincount(labels).tolist() == [4, 4, 4]
        assert inputs["previous_labels"][0] == -1
        np.testing.assert_array_equal(inputs["previous_labels"][1:], labels[:-1])
        assert len(np.unique(inputs["images"].numpy().reshape(12, -1), axis=0)) == 12
        orders.add(tuple(labels.numpy().tolist()))
    assert len(orders) == 6


def test_images_of_a_label_are_of_one_class():
    """Toy images of a class share a pattern of 4 x 4 blocks, with a little noise."""
    inputs, labels = tasks().episodes("test", 0)(tf.constant(1, tf.int64))
    blocks = inputs["images"].numpy().reshape(12, 4, 4, 4, 4).mean(axis=(2, 4)) > 0.5
    for label in range(3):
        of_label = blocks[labels.numpy() == label]
        assert (of_label == of_label[0]).all()


def test_ink_is_one_and_paper_zero():
    normalization = tasks().normalization
    np.testing.assert_allclose(
        normalization(tf.constant([[0.0], [255.0], [51.0]]))[:, 0], [1, 0, 0.8]
    )


def test_a_list_is_named_by_its_images_and_their_order():
    streams = [tasks().episodes("test", seed) for seed in (0, 0, 1)]
    first, same, other = (one.fingerprint(3) for one in streams)
    assert first == same != other
    assert first != streams[0].sampler.fingerprint(3)


def test_the_size_of_a_stream_is_said():
    assert tasks().task == "3 classes, 4 showings"
    assert tasks().sizes() == {"num_way": 3, "num_showings": 4}
    assert tasks().input_shape == (16, 16, 1)


def test_accuracy_is_counted_by_showing():
    """The first showing of class 1 is answered right, and every second showing."""
    labels = np.array([1, 0, 0, 1])
    assert showings(labels).tolist() == [0, 0, 1, 1]
    counted = AccuracyByShowing()
    counted.add(labels, np.eye(2)[[1, 1, 0, 1]])
    counted.add(labels, np.eye(2)[[0, 1, 0, 1]])
    np.testing.assert_array_equal(counted.accuracies, [[0.5, 1.0], [0.0, 1.0]])
    first, second = counted.report()
    assert first == {"showing": 1, "mean": 0.25, "interval": 0.49}
    assert (second["mean"], second["interval"]) == (1.0, 0.0)
    assert "      2   100.0 +- 0.0 %" in counted.table()


def test_an_answer_that_is_no_number_is_wrong():
    counted = AccuracyByShowing()
    counted.add(np.array([0, 1]), np.array([[np.nan, 0.0], [0.0, 1.0]]))
    assert counted.report() == [{"showing": 1, "mean": 0.5, "interval": None}]
