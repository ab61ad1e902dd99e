"""Tests networks on images: losses against NumPy, batches, starts, and the split of the images."""

import gzip
import shutil
import struct

import numpy as np
import pytest
import tensorflow as tf
import toy
from PIL import Image

from tf_metalstm.data import networks
from tf_metalstm.data.labelled_folders import load_folders
from tf_metalstm.data.networks import STARTS, Network, NetworkOptions, NetworkTasks, mixed, resized
from tf_metalstm.data.sources.base import (
    SPLITS,
    CorruptImageError,
    InconsistentDataError,
    MissingDataError,
)
from tf_metalstm.options import OptionError

SIZE = 16


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    """Twelve classes in each split, in place of the drawn letters."""

    class Toys:
        def __init__(self, prepared_dir=None):
            pass

        def load(self, split):
            return toy.glyph_like_classes(12, 5, SIZE, seed=SPLITS.index(split))

    monkeypatch.setattr(networks, "Glyphs", Toys)


def tasks(**options):
    options = {"network_image_size": SIZE, "network_batch_size": 8, **options}
    return NetworkTasks(NetworkOptions(**options))


def drawn(tasks, index=0, split="train", **arguments):
    return tasks.episodes(split, 0, **arguments)(tf.constant(index))[0]


def parameters(network, theta):
    return {
        each.name: theta[each.start : each.start + each.size].reshape(each.shape)
        for each in network.blocks
    }


@pytest.mark.parametrize(
    ("activation", "layers"), [("sigmoid", (5,)), ("relu", (4, 3)), ("tanh", ())]
)
def test_the_loss_by_numpy(activation, layers):
    of = tasks(network_layers=layers, network_activation=activation)
    task = drawn(of)
    problem = of.problem(task)
    rows, labels = (x.numpy() for x in problem.batch(3))
    theta = np.random.default_rng(0).normal(size=task["theta_0"].shape).astype(np.float32)
    named = parameters(of.network, theta)
    hidden = problem.images.numpy()[rows].reshape(8, -1) / 255.0
    act = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "relu": lambda x: np.maximum(x, 0)}
    for number in range(1, len(layers) + 2):
        hidden = hidden @ named[f"layer_{number}/kernel"] + named[f"layer_{number}/bias"]
        if number <= len(layers):
            hidden = act[activation](hidden)
    logits = hidden - hidden.max(axis=1, keepdims=True)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean(log_softmax[np.arange(8), labels])
    found, carry = problem.loss(tf.constant(theta), problem.initial_carry(), 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert carry == ()
    assert problem.gradient_scale() == 1.0


def test_a_convolution_by_hand():
    """The kernel copies the middle pixel, so only batch norm, ReLU and pooling act on the image."""
    of = tasks(network_filters=(1,), network_layers=())
    problem = of.problem(drawn(of))
    rows, labels = (x.numpy() for x in problem.batch(0))
    theta = np.zeros(sum(each.size for each in of.blocks), np.float32)
    named = parameters(of.network, theta)  # these are views
    named["conv_1/kernel"][1, 1] = 1.0
    named["conv_1/gamma"][:] = 2.0
    generator = np.random.default_rng(0)
    named["layer_1/kernel"][:] = generator.normal(size=named["layer_1/kernel"].shape)
    images = problem.images.numpy()[rows][..., 0] / 255.0
    hidden = np.maximum(2.0 * (images - images.mean()) / np.sqrt(images.var() + 1e-5), 0.0)
    half = SIZE // 2
    hidden = hidden.reshape(8, half, 2, half, 2).max(axis=(2, 4)).reshape(8, -1)
    logits = hidden @ named["layer_1/kernel"]
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(8), labels])
    np.testing.assert_allclose(problem.loss(tf.constant(theta), (), 0)[0], expected, rtol=1e-3)


def test_the_second_derivative_of_a_convolution_agrees_with_finite_differences():
    network = Network(4, (), (2,), "relu", 1)
    generator = np.random.default_rng(0)
    size = sum(block.size for block in network.blocks)
    theta = tf.constant(generator.normal(size=size))
    direction = tf.constant(generator.normal(size=size))
    images = tf.constant(generator.normal(size=(6, 4, 4, 1)))

    def gradient(theta):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            loss = tf.reduce_mean(network.logits(theta, images) ** 2)
        return tape.gradient(loss, theta)

    with tf.GradientTape() as tape:
        tape.watch(theta)
        along = tf.tensordot(gradient(theta), direction, 1)
    step = 1e-6
    expected = gradient(theta + step * direction) - gradient(theta - step * direction)
    np.testing.assert_allclose(tape.gradient(along, theta), expected / (2 * step), atol=1e-5)


def test_every_step_has_images_of_its_own_and_labels_that_are_theirs():
    of = tasks(network_batch_size=50)
    task = drawn(of, split="test")
    problem = of.problem(task)
    first, sizes = task["first"].numpy(), task["sizes"].numpy()
    batches = [[x.numpy() for x in problem.batch(step)] for step in range(40)]
    for rows, labels in batches:
        assert np.all((rows >= first[labels]) & (rows < first[labels] + sizes[labels]))
        assert rows.min() >= 2 * 12 * 5  # rows of the test split come last
    assert len({tuple(rows) for rows, _ in batches}) == 40
    counts = np.bincount(np.concatenate([labels for _, labels in batches]), minlength=10)
    assert np.abs(counts - 200).max() < 5 * np.sqrt(200)
    seen = np.unique(np.concatenate([rows for rows, _ in batches]))
    assert len(seen) == 50  # all images of ten classes
    again = of.problem(task).batch(7)
    np.testing.assert_array_equal(again[0], batches[7][0])


def test_problems_of_one_list_have_other_classes_starts_and_batches():
    of = tasks()
    one, other = drawn(of, 0), drawn(of, 1)
    for name in ("first", "theta_0", "batch_key"):
        assert np.any(one[name] != other[name]), name
    for changed in (drawn(of, 0, training=True), drawn(of, 0, "test")):
        assert np.any(one["theta_0"] != changed["theta_0"])
    np.testing.assert_array_equal(drawn(tasks(), 1)["theta_0"], other["theta_0"])
    prints = {of.episodes(split, 0).fingerprint(2) for split in SPLITS}
    assert len(prints) == 3


def test_starts():
    small = drawn(tasks())["theta_0"].numpy()
    np.testing.assert_allclose(small.std(), 0.01, rtol=0.05)
    of = tasks(network_start="glorot", network_filters=(4,), network_layers=(30,))
    named = parameters(of.network, drawn(of)["theta_0"].numpy())
    width = 4 * (SIZE // 2) ** 2
    assert named["layer_1/kernel"].shape == (width, 30)
    np.testing.assert_allclose(named["layer_1/kernel"].std(), np.sqrt(2 / (width + 30)), rtol=0.05)
    np.testing.assert_array_equal(named["conv_1/gamma"], 1.0)
    for name in ("conv_1/beta", "layer_1/bias", "layer_2/bias"):
        np.testing.assert_array_equal(named[name], 0.0)
    assert of.task == "conv4 256-30-10 sigmoid on glyphs"


def test_a_start_that_is_drawn_is_one_of_the_others():
    starts = {name: tasks(network_start=name) for name in STARTS}
    found = []
    for number in range(12):
        small, glorot, either = (drawn(of, number)["theta_0"] for of in starts.values())
        equal = [np.array_equal(either, one) for one in (small, glorot)]
        assert sum(equal) == 1
        found.append(equal.index(True))
    assert set(found) == {0, 1}


def test_mixed_numbers_are_those_of_the_hash():
    """Compares with integers of Python, which have any size."""

    def hashed(x):
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    numbers = [0, 1, 2, 2**31, 2**32 - 1]
    np.testing.assert_array_equal(
        mixed(tf.constant(numbers, tf.uint32)), [hashed(x) for x in numbers]
    )


def test_images_are_averaged_down():
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(resized(image, 2)[0, ..., 0], [[2, 4], [10, 12]])


def write_idx(folder, name, values, compress=False):
    data = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    data += values.astype(np.uint8).tobytes()
    path = folder / (f"{name}.gz" if compress else name)
    path.write_bytes(gzip.compress(data) if compress else data)
    return path


@pytest.fixture
def idx_dir(tmp_path):
    """Sixty training images and twenty test images. The first pixel is the number of the image."""
    for part, number in (("train", 60), ("t10k", 20)):
        images = np.zeros((number, 4, 4))
        images[:, 0, 0] = np.arange(number)
        write_idx(tmp_path, f"{part}-images-idx3-ubyte", images, compress=part == "t10k")
        write_idx(tmp_path, f"{part}-labels-idx1-ubyte", np.arange(number) % 10)
    return tmp_path


def test_idx_files_are_read_and_split(idx_dir):
    of = tasks(network_images="idx", data_dir=str(idx_dir), network_image_size=4)
    found = {split: networks.load_idx(idx_dir, split) for split in SPLITS}
    assert [found[split].class_sizes.tolist() for split in SPLITS] == [[5] * 10, [1] * 10, [2] * 10]
    assert found["train"].images[:5, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert found["validation"].images[:, 0, 0, 0].tolist() == list(range(50, 60))
    task = drawn(of, split="validation")
    np.testing.assert_array_equal(task["first"], 50 + np.arange(10))
    assert of.task == "16-20-10 sigmoid on idx"


def test_files_that_are_none_are_refused(idx_dir, tmp_path):
    labels = idx_dir / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    for content, error, message in (
        (whole[:-3], CorruptImageError, r"should have 60 values, has 57"),
        (b"GIF89a", CorruptImageError, r"is not an IDX file of bytes"),
        (whole[:4] + struct.pack(">I", 2) + b"\0\1", InconsistentDataError, r"do not belong"),
    ):
        labels.write_bytes(content)
        with pytest.raises(error, match=message):
            networks.load_idx(idx_dir, "train")
    labels.unlink()
    with pytest.raises(MissingDataError, match=r"Neither train-labels-idx1-ubyte nor"):
        networks.load_idx(idx_dir, "train")
    cut = idx_dir / "t10k-images-idx3-ubyte.gz"
    cut.write_bytes(cut.read_bytes()[:-9])
    with pytest.raises(CorruptImageError, match=r"is damaged"):
        networks.load_idx(idx_dir, "test")


def test_the_folder_goes_with_idx_files():
    with pytest.raises(
        OptionError,
        match=r"^data_dir does nothing without network_images=idx or network_images=folders",
    ):
        tasks(data_dir="a")
    with pytest.raises(OptionError, match=r"^data_dir is needed: the folder with the four files"):
        tasks(network_images="idx").episodes("train", 0)


@pytest.fixture
def folders_dir(tmp_path):
    """Writes ten classes: seven plain pictures in train, one in test, each with its own level."""
    for number in range(10):
        for part, count in (("train", 7), ("test", 1)):
            folder = tmp_path / part / f"class_{number}"
            folder.mkdir(parents=True)
            for member in range(count):
                level = 20 * number + member + 10 * (part == "test")
                Image.new("RGB", (6, 6), (level, 0, 255)).save(folder / f"{member}.png")
    (tmp_path / "train" / "class_3" / "Thumbs.db").write_bytes(b"clutter")
    return tmp_path


def test_class_folders_are_read_and_split(folders_dir):
    levels = {
        split: load_folders(folders_dir, split, 4).images[:, 0, 0, 0].tolist() for split in SPLITS
    }
    assert levels["train"] == [20 * number + member for number in range(10) for member in range(6)]
    assert levels["validation"] == [20 * number + 6 for number in range(10)]
    assert levels["test"] == [20 * number + 10 for number in range(10)]
    of = tasks(network_images="folders", data_dir=str(folders_dir), network_image_size=4)
    assert of.task == "48-20-10 sigmoid on folders"
    assert of.network.blocks[0].shape == (48, 20)
    problem = of.problem(drawn(of, split="test"))
    rows, labels = problem.batch(0)
    images = tf.gather(problem.images, rows).numpy()
    np.testing.assert_array_equal(images[:, 0, 0, 0], 20 * labels.numpy() + 10)
    assert np.all(images[..., 2] == 255)


def test_folders_that_do_not_fit_are_refused(folders_dir):
    with pytest.raises(OptionError, match=r"^data_dir is needed: the folder with train/CLASS"):
        tasks(network_images="folders").episodes("train", 0)
    (folders_dir / "train" / "class_3" / "damaged.png").write_bytes(b"no picture")
    with pytest.raises(CorruptImageError, match=r"class_3/damaged\.png"):
        load_folders(folders_dir, "validation", 4)
    for picture in (folders_dir / "train" / "class_5").glob("[1-6].png"):
        picture.unlink()
    with pytest.raises(InconsistentDataError, match=r"class_5 has no pictures for validation\."):
        load_folders(folders_dir, "validation", 4)
    shutil.rmtree(folders_dir / "test" / "class_4")
    with pytest.raises(InconsistentDataError, match=r"the same class folders.* class_4"):
        load_folders(folders_dir, "train", 4)
    shutil.rmtree(folders_dir / "test")
    with pytest.raises(MissingDataError, match=r"test is not there: give a folder with train/"):
        load_folders(folders_dir, "train", 4)
