"""Networks on images as problems of a learned optimizer: each step has other images.

Andrychowicz et al., NIPS 2016, sections 3.2 and 3.3:

    f_t(theta) = mean over the B images of step t of -log softmax(network(image; theta))[label]

The network has hidden layers with an activation, by default one of 20 sigmoid units. Without hidden
layers it is softmax regression. Blocks of [3 x 3 convolution, batch normalization, ReLU, max
pooling] may come first. The initial weights are normal with deviation 0.01, as in the paper,
those of Glorot, or one of the two, drawn for each problem.

A problem on glyphs has ten random letters. Problems on IDX files (MNIST, Fashion-MNIST) or class
folders (CIFAR-10, in color) always have the same classes. Training, validation and test have
different images.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_metalstm.data.episodes import random_key
from tf_metalstm.data.idx import load_idx
from tf_metalstm.data.labelled_folders import load_folders
from tf_metalstm.data.options import DataDirOptions, PreparedDirOptions
from tf_metalstm.data.sources.base import SPLITS, ClassImages, check_split
from tf_metalstm.data.sources.glyphs import IMAGE_SIZE, Glyphs
from tf_metalstm.data.tasks import ProblemTasks
from tf_metalstm.episode import Tensor
from tf_metalstm.options import OptionError, option
from tf_metalstm.parameters import Blocks, blocks_of
from tf_metalstm.parts import Part

IMAGES = ("glyphs", "idx", "folders")
ACTIVATIONS = {"sigmoid": tf.sigmoid, "relu": tf.nn.relu, "tanh": tf.tanh, "elu": tf.nn.elu}
STARTS = ("small", "glorot", "either")

NUM_CLASSES = 10
_DEVIATION = 0.01
_EPSILON = 1e-5  # of batch normalization
_CLASSES, _WEIGHTS, _BATCHES, _START = range(4)  # streams of random numbers


@dataclass(frozen=True)
class NetworkOptions(DataDirOptions, PreparedDirOptions):
    """Options of networks on images."""

    network_images: str = option(
        "glyphs",
        "Images that the networks learn: letters drawn from fonts, those of IDX files, such as "
        "MNIST, or color pictures in train/CLASS and test/CLASS, such as CIFAR-10.",
        choices=IMAGES,
    )
    network_image_size: int = option(
        IMAGE_SIZE,
        "Height and width of the images in pixels; larger images are averaged.",
        at_least=1,
    )
    network_layers: tuple[int, ...] = option(
        (20,), "Units of each hidden layer; an empty list makes softmax regression.", at_least=1
    )
    network_filters: tuple[int, ...] = option(
        (), "Filters of each convolution before these layers; default: no convolutions.", at_least=1
    )
    network_activation: str = option(
        "sigmoid", "Activation after each hidden layer.", choices=tuple(ACTIVATIONS)
    )
    network_start: str = option(
        "small",
        "Initial weights: normal with deviation 0.01 (small), kernels by Glorot & Bengio and "
        "biases of zero (glorot), or one of the two, drawn for each problem (either).",
        choices=STARTS,
    )
    network_batch_size: int = option(128, "B, number of images of a step.", at_least=1)


@dataclass(frozen=True)
class Network:
    """A network as a function of theta.

    image_size: height and width of the images.
    layers: units of the hidden layers.
    filters: filters of the convolutions.
    activation: activation of the hidden layers.
    channels: 1 (gray) or 3 (color).
    """

    image_size: int
    layers: tuple[int, ...]
    filters: tuple[int, ...]
    activation: str
    channels: int

    @functools.cached_property
    def blocks(self) -> Blocks:
        """The blocks of theta: kernels and biases, in order."""
        shapes: list[tuple[str, tuple[int, ...]]] = []
        channels, size = self.channels, self.image_size
        for number, filters in enumerate(self.filters, 1):
            shapes += [
                (f"conv_{number}/kernel", (3, 3, channels, filters)),
                (f"conv_{number}/gamma", (filters,)),
                (f"conv_{number}/beta", (filters,)),
            ]
            channels, size = filters, math.ceil(size / 2)
        widths = (channels * size * size, *self.layers, NUM_CLASSES)
        for number, (into, out) in enumerate(itertools.pairwise(widths), 1):
            shapes += [(f"layer_{number}/kernel", (into, out)), (f"layer_{number}/bias", (out,))]
        return blocks_of(shapes)

    def logits(self, theta: Tensor, images: Tensor) -> Tensor:
        """Returns the logits [B, 10] of images [B, h, w, c] with pixels from 0 to 1."""
        parts = iter(
            tf.reshape(theta[each.start : each.start + each.size], each.shape)
            for each in self.blocks
        )
        hidden = images
        for _ in self.filters:
            hidden = tf.nn.conv2d(hidden, next(parts), strides=1, padding="SAME")
            # tf.nn.moments has a wrong second derivative.
            centered = hidden - tf.reduce_mean(hidden, [0, 1, 2])
            variance = tf.reduce_mean(tf.square(centered), [0, 1, 2])
            gamma, beta = next(parts), next(parts)
            hidden = centered * tf.math.rsqrt(variance + _EPSILON) * gamma + beta
            hidden = tf.nn.max_pool2d(tf.nn.relu(hidden), 2, 2, padding="SAME")
        hidden = tf.reshape(hidden, [-1, math.prod(hidden.shape[1:])])
        for _ in self.layers:
            hidden = ACTIVATIONS[self.activation](tf.matmul(hidden, next(parts)) + next(parts))
        return tf.matmul(hidden, next(parts)) + next(parts)


@dataclass(frozen=True)
class NetworkProblem:
    """One network on the images of ten classes.

    network: the function of theta.
    images: images of all splits, uint8 [total, h, w, c].
    first: row of the first image of each of the ten classes, int32 [10].
    sizes: number of images of each class, int32 [10].
    key: key of the random numbers of its batches, uint32 [].
    batch_size: B.
    """

    network: Network
    images: Tensor
    first: Tensor
    sizes: Tensor
    key: Tensor
    batch_size: int

    def initial_carry(self) -> tuple[()]:
        """Returns (): batch normalization only uses the moments of its batch."""
        return ()

    def loss(self, theta: Tensor, carry: Any, step: Any) -> tuple[Tensor, Any]:
        """Returns the mean cross-entropy of the images of a step, and the carry ()."""
        rows, labels = self.batch(step)
        images = tf.cast(tf.gather(self.images, rows), theta.dtype) / 255.0
        logits = self.network.logits(theta, images)
        chosen = tf.one_hot(labels, NUM_CLASSES, dtype=theta.dtype)
        return -tf.reduce_mean(tf.reduce_sum(chosen * tf.nn.log_softmax(logits), axis=-1)), carry

    def gradient_scale(self) -> float:
        """Returns 1."""
        return 1.0

    def batch(self, step: Any) -> tuple[Tensor, Tensor]:
        """Returns the rows and labels of the images of a step, int32 [B] each.

        Classes are drawn uniformly, and the image uniformly from its class.
        """
        place = tf.range(2 * self.batch_size) + 2 * self.batch_size * tf.cast(step, tf.int32)
        drawn = mixed(tf.cast(place, tf.uint32) + self.key)
        # 31 bits, so that they fit a signed number.
        classes, members = tf.split(tf.cast(drawn // 2, tf.int32), 2)
        labels = classes % NUM_CLASSES
        rows = tf.gather(self.first, labels) + members % tf.gather(self.sizes, labels)
        return rows, labels


def mixed(x: Tensor) -> Tensor:
    """Returns a number that looks random for each number, uint32, any shape.

    This is the hash `lowbias32` of C. Wellons, 2018. Unlike TensorFlow's random numbers, its
    operations can be batched over problems.
    """

    def shifted(x: Tensor, bits: int) -> Tensor:
        return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(bits, tf.uint32)))

    x = shifted(x, 16) * tf.constant(0x7FEB352D, tf.uint32)
    x = shifted(x, 15) * tf.constant(0x846CA68B, tf.uint32)
    return shifted(x, 16)


@dataclass(frozen=True)
class NetworkEpisodes:
    """Networks by their number.

    Args:
        blocks: the tensors of theta.
        start: one of STARTS.
        class_sizes: number of images of each class of the split, [C].
        first_row: row of the first image of the split among those of all splits.
        split: its name goes into the random numbers.
        seed: any integer that fits 32 bits.
        training: whether to use the keys of training, which no list uses.
    """

    blocks: Blocks
    start: str
    class_sizes: tuple[int, ...]
    first_row: int
    split: str
    seed: int
    training: bool = False

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns first [10], sizes [10], batch_key [] and theta_0 [P], and an unused label."""
        sizes = np.asarray(self.class_sizes, np.int32)
        first = (self.first_row + np.cumsum(sizes) - sizes).astype(np.int32)
        key = self._key(index, _CLASSES)
        order = tf.random.experimental.stateless_shuffle(tf.range(len(sizes)), key)
        chosen = order[:NUM_CLASSES] if len(sizes) > NUM_CLASSES else tf.range(NUM_CLASSES)
        task = {
            "first": tf.gather(first, chosen),
            "sizes": tf.gather(sizes, chosen),
            "batch_key": tf.random.stateless_uniform(
                [], self._key(index, _BATCHES), None, None, tf.uint32
            ),
            "theta_0": self._weights(index),
        }
        return task, tf.zeros([])

    def fingerprint(self, num_episodes: int) -> str:
        """Returns a hash of problems 0 ... num_episodes - 1."""
        digest = hashlib.sha256(f"networks/{self.split}: {self.start}".encode())
        for index in range(num_episodes):
            task, _ = self(tf.constant(index, tf.int64))
            for name in sorted(task):
                digest.update(tf.io.serialize_tensor(task[name]).numpy())
        return digest.hexdigest()[:16]

    def _weights(self, index: Tensor) -> Tensor:
        num_parameters = sum(each.size for each in self.blocks)
        drawn = tf.random.stateless_normal([num_parameters], self._key(index, _WEIGHTS))
        if self.start == "either":
            coin = tf.random.stateless_uniform([], self._key(index, _START)) < 0.5
            deviations = tf.where(coin, *(_deviations(self.blocks, one) for one in STARTS[:2]))
        else:
            deviations = tf.constant(_deviations(self.blocks, self.start))
        return drawn * deviations + _offsets(self.blocks)

    def _key(self, index: Tensor, stream: int) -> Tensor:
        index = tf.cast(index, tf.int64)
        return random_key(self.seed, self.split, stream, index, self.training)


def _deviations(blocks: Blocks, start: str) -> np.ndarray:
    """Returns the deviation of the initial value of each coordinate, [P]."""

    def of_block(name: str, shape: tuple[int, ...]) -> float:
        if name.endswith(("gamma", "beta")):
            return 0.0
        if start == "small":
            return _DEVIATION
        if name.endswith("bias"):
            return 0.0
        field = math.prod(shape[:-2])
        return math.sqrt(2.0 / (field * (shape[-2] + shape[-1])))

    return np.concatenate(
        [np.full(each.size, of_block(each.name, each.shape), np.float32) for each in blocks]
    )


def _offsets(blocks: Blocks) -> np.ndarray:
    """Returns the mean of the initial value of each coordinate, [P]: 1 for gamma, else 0."""
    values = [float(each.name.endswith("gamma")) for each in blocks]
    sizes = [each.size for each in blocks]
    return np.repeat(np.asarray(values, np.float32), sizes)


class NetworkTasks(ProblemTasks):
    """Networks on images.

    Args:
        options: the options of this source.
    """

    part = Part("networks", "Networks on images", "Andrychowicz et al., NIPS 2016", NetworkOptions)
    name = "networks"
    options: NetworkOptions

    def __init__(self, options: NetworkOptions | None = None) -> None:
        self.options = options = options or NetworkOptions()
        if options.network_images == "glyphs" and options.data_dir is not None:
            raise OptionError(
                "data_dir",
                "does nothing without network_images=idx or network_images=folders. Leave it out.",
            )
        self.network = Network(
            options.network_image_size,
            options.network_layers,
            options.network_filters,
            options.network_activation,
            3 if options.network_images == "folders" else 1,
        )
        self.blocks = self.network.blocks
        self._loaded: dict[str, ClassImages] = {}

    @classmethod
    def from_options(cls, options: NetworkOptions) -> NetworkTasks:  # type: ignore[override]
        return cls(options)

    @property
    def task(self) -> str:
        """Name of the task, such as "784-20-10 sigmoid on glyphs"."""
        kernels = [each for each in self.blocks if each.name.startswith("layer")]
        widths = [each.shape[0] for each in kernels if each.name.endswith("kernel")]
        layers = "-".join(map(str, (*widths, NUM_CLASSES)))
        before = "".join(f"conv{filters} " for filters in self.options.network_filters)
        activation = f" {self.options.network_activation}" if self.options.network_layers else ""
        return f"{before}{layers}{activation} on {self.options.network_images}"

    def episodes(self, split: str, seed: int, training: bool = False) -> NetworkEpisodes:
        """Returns the problems of a split; reads its images."""
        classes = self._classes(check_split(split))
        sizes = tuple(classes.class_sizes.tolist())
        if len(sizes) < NUM_CLASSES:
            raise ValueError(
                f"A network here has {NUM_CLASSES} outputs, but {split} has {len(sizes)} classes: "
                "give images of more classes."
            )
        blocks, start = self.blocks, self.options.network_start
        before = SPLITS[: SPLITS.index(split)]
        first_row = sum(len(self._classes(each).images) for each in before)
        return NetworkEpisodes(blocks, start, sizes, first_row, split, seed, training)

    def problem(self, task: Mapping[str, Tensor]) -> NetworkProblem:
        """Returns the network of a task."""
        return NetworkProblem(
            self.network,
            self._images,
            task["first"],
            task["sizes"],
            task["batch_key"],
            self.options.network_batch_size,
        )

    def describe(self) -> str:
        """Returns network, images and batch size."""
        return (
            f"networks: {self.task}, images of {self.options.network_image_size} x "
            f"{self.options.network_image_size} pixels, {self.options.network_batch_size} a step, "
            f"{self.options.network_start} start"
        )

    def _classes(self, split: str) -> ClassImages:
        """Returns the images of a split, ink white on black, at the size of the networks."""
        if split not in self._loaded:
            self._loaded[split] = self._load(split)
        return self._loaded[split]

    def _load(self, split: str) -> ClassImages:
        images, size = self.options.network_images, self.options.network_image_size
        if images == "glyphs":
            classes = Glyphs(self.options.prepared_dir).load(split)
            classes = classes._replace(images=255 - classes.images)
        elif self.options.data_dir is None:
            contents = {
                "idx": "the four files of MNIST or Fashion-MNIST",
                "folders": "train/CLASS/PICTURE and test/CLASS/PICTURE",
            }
            raise OptionError("data_dir", f"is needed: the folder with {contents[images]}.")
        elif images == "idx":
            classes = load_idx(self.options.data_dir, split)
        else:
            classes = load_folders(self.options.data_dir, split, size)
        if classes.images.shape[1:3] != (size, size):
            classes = classes._replace(images=resized(classes.images, size))
        return classes

    @functools.cached_property
    def _images(self) -> Tensor:
        """The images of all splits, uint8 [total, h, w, c]."""
        with tf.init_scope(), tf.device("CPU:0"):  # once, outside of the graph that needs it first
            return tf.constant(np.concatenate([self._classes(split).images for split in SPLITS]))


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Returns uint8 images [total, h, w, 1] averaged to size x size pixels."""
    parts = np.array_split(images, len(images) // 5000 + 1)
    averaged = [tf.image.resize(part, (size, size), "area").numpy() for part in parts]
    return np.round(np.concatenate(averaged)).astype(np.uint8)
