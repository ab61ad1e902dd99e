"""Episodes as tf.data streams: episode i of a split is a pure function of (seed, split, i).

So a run can continue exactly where it stopped (at episode i), an evaluation list is fixed
by its seed, and workers can share a stream without communication. All random numbers come
from TensorFlow's stateless generators. Training uses other keys than evaluation, so no list
of evaluation episodes, with any seed, was trained on.

Classes are drawn independently for every episode, or N at a time from a random permutation
of the split's classes (as in the authors' code).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from tf_metalstm.data.options import CLASS_SAMPLINGS
from tf_metalstm.data.preprocessing import Augmentation, Normalization
from tf_metalstm.data.sources.base import SPLITS, ClassImages
from tf_metalstm.episode import EpisodeSpec, Tensor
from tf_metalstm.graphs import graph_function, unconverted
from tf_metalstm.options import OptionError


@dataclass(frozen=True)
class EpisodeSampler:
    """Draws the classes and the images of episode i.

    Args:
        classes: the images of one split.
        split: name of the split; the random numbers depend on it.
        spec: ways, shots and queries.
        seed: any integer that fits 32 bits.
        class_sampling: "independent" or "permutation".
        source_name: name of the source, for errors.
        training: whether to use the random numbers of training, which no list of episodes uses.

    Raises:
        ValueError: more ways than classes, a class with fewer than K + Q images, or an
            unknown name.
    """

    classes: ClassImages
    split: str
    spec: EpisodeSpec
    seed: int = 0
    class_sampling: str = "independent"
    source_name: str = "source"
    training: bool = False

    def __post_init__(self) -> None:
        where = f"{self.source_name}/{self.split}"
        if self.spec.num_way < 2:
            raise OptionError(
                "num_way",
                f"must be at least 2, got {self.spec.num_way}.",
            )
        num_classes = len(self.classes.class_names)
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}.")
        if self.class_sampling not in CLASS_SAMPLINGS:
            raise OptionError(
                "class_sampling",
                f"must be one of {', '.join(CLASS_SAMPLINGS)}, got {self.class_sampling!r}.",
            )
        if self.spec.num_way > num_classes:
            raise ValueError(
                f"{where} has {num_classes} classes but num_way is {self.spec.num_way}: "
                "lower num_way or choose another split."
            )
        smallest = int(np.argmin(self.classes.class_sizes))
        size = int(self.classes.class_sizes[smallest])
        if size < self.spec.images_per_class:
            raise ValueError(
                f"Class {self.classes.class_names[smallest]!r} of {where} has {size} images but an "
                f"episode needs {self.spec.images_per_class} of each class "
                f"({self.spec.num_shot} support + {self.spec.num_query} queries): "
                "lower num_shot or num_query, add images, or leave such classes out with "
                "skip_small_classes=true."
            )

    def sample(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the classes and images of episode `index`.

        Returns:
            The numbers of the classes, [N] in [0, C), and the numbers of the images in each class,
            [N, K + Q], from 0. The first K images of each class are the support.
        """
        index = tf.cast(index, tf.int64)
        drawn = self._draw_classes(index)
        sizes = tf.gather(tf.constant(self.classes.class_sizes, tf.int32), drawn)
        largest = int(np.max(self.classes.class_sizes))
        order = tf.random.stateless_uniform(
            [self.spec.num_way, largest], self._key(index, stream=1)
        )
        # top_k never takes positions after the end of a class, because their value is -1.
        order = tf.where(tf.range(largest) < sizes[:, tf.newaxis], order, -1.0)
        members = tf.math.top_k(order, self.spec.images_per_class).indices
        return drawn, members

    def augmentation_seed(self, index: Tensor) -> Tensor:
        """Returns the seed [2] for the augmentation of episode `index`."""
        return self._key(tf.cast(index, tf.int64), stream=2)

    def order_seed(self, index: Tensor) -> Tensor:
        """Returns the seed [2] for the order of the images of episode `index`, where it counts."""
        return self._key(tf.cast(index, tf.int64), stream=3)

    def fingerprint(self, num_episodes: int) -> str:
        """Returns a hash of the list of episodes 0 ... num_episodes - 1.

        It covers the names of the classes, the positions of the images in their class, and the
        division into support and queries. Equal fingerprints mean equal lists.
        """
        digest = hashlib.sha256()
        digest.update(f"{self.source_name}/{self.split}: {self.spec}".encode())
        sample = graph_function(self.sample)
        for index in range(num_episodes):
            drawn, members = (x.numpy() for x in sample(tf.constant(index, tf.int64)))
            for name, row in zip(drawn, members, strict=True):
                line = f"\n{self.classes.class_names[name]} {row.tolist()}"
                # A name may have bytes that are not UTF-8.
                digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()[:16]

    def _draw_classes(self, index: Tensor) -> Tensor:
        num_classes, num_way = len(self.classes.class_names), self.spec.num_way
        if self.class_sampling == "independent":
            return self._permutation(index, num_classes)[:num_way]
        episodes_per_pass = num_classes // num_way
        first = tf.cast(index % episodes_per_pass, tf.int32) * num_way
        return self._permutation(index // episodes_per_pass, num_classes)[first : first + num_way]

    def _permutation(self, number: Tensor, size: int) -> Tensor:
        seed = self._key(number, stream=0)
        return tf.random.experimental.stateless_shuffle(tf.range(size), seed)

    def _key(self, number: Tensor, stream: int) -> Tensor:
        return random_key(self.seed, self.split, stream, number, self.training)


class Episodes(Protocol):
    """The episodes of a split: a function of their number, and a fingerprint of a list."""

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns episode `index`.

        Returns:
            A dict {support_inputs [N*K, ...], support_labels [N*K, ...],
            query_inputs [N*Q, ...]} and the query labels [N*Q, ...].
        """

    def fingerprint(self, num_episodes: int) -> str:
        """Returns a hash of episodes 0 ... num_episodes - 1; equal hashes mean equal lists."""


class ImageEpisodes:
    """Episodes of images.

    Args:
        sampler: draws the images of an episode.
        normalization: normalization of pixels.
        augmentation: augmentation of the images, or None.
    """

    def __init__(
        self,
        sampler: EpisodeSampler,
        normalization: Normalization,
        augmentation: Augmentation | None = None,
    ):
        self.sampler = sampler
        self._sample = graph_function(sampler.sample)
        self._normalization, self._augmentation = normalization, augmentation
        sizes = sampler.classes.class_sizes
        with tf.device("CPU:0"):  # a data set of images may be larger than a GPU
            self._images = tf.constant(sampler.classes.images)
            self._first_rows = tf.constant(np.cumsum(sizes) - sizes, tf.int64)

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns images float32 [N*K, h, w, c] and [N*Q, h, w, c], labels int32."""
        pixels = tf.gather(self._images, self.rows(index))  # [N, K + Q, h, w, c]
        if self._augmentation is not None:
            pixels = self._augmentation(pixels, self.sampler.augmentation_seed(index))
        inputs, labels = arrange(pixels, self.sampler.spec)
        # Normalization comes last, because uint8 is faster to move than float32.
        for name in ("support_inputs", "query_inputs"):
            inputs[name] = self._normalization(inputs[name])
        return inputs, labels

    @property
    def is_augmented(self) -> bool:
        """Whether an image differs from episode to episode."""
        return self._augmentation is not None

    def rows(self, index: Tensor) -> Tensor:
        """Returns which images of the split make up episode `index`, int64 [N, K + Q]."""
        drawn, members = self.sampler.sample(index)
        return tf.gather(self._first_rows, drawn)[:, tf.newaxis] + tf.cast(members, tf.int64)

    def images(self, rows: Tensor) -> Tensor:
        """Returns images of the split as episodes have them, float32 [B, h, w, c]."""
        return self._normalization(tf.gather(self._images, rows))

    def classes(self, index: int) -> np.ndarray:
        """Returns the classes of episode `index`, as numbers in the split, [N]."""
        return self._sample(tf.constant(index, tf.int64))[0].numpy()

    def fingerprint(self, num_episodes: int) -> str:
        """Returns the fingerprint of the sampler."""
        return self.sampler.fingerprint(num_episodes)


def episode_dataset(
    episodes: Episodes,
    *,
    start: int = 0,
    num_episodes: int | None = None,
    episodes_per_step: int = 1,
) -> tf.data.Dataset:
    """Returns a stream of episodes in batches of E.

    Args:
        episodes: the episodes of a split.
        start: number of the first episode.
        num_episodes: number of episodes; None for an endless stream.
        episodes_per_step: E. It must divide `num_episodes`.

    Returns:
        A data set of the values of `episodes`, with a leading dimension E.

    Raises:
        ValueError: E does not divide `num_episodes`.
    """
    if num_episodes is not None and num_episodes % episodes_per_step:
        raise ValueError(
            f"The number of episodes, {num_episodes}, must be a multiple of episodes_per_step, "
            f"{episodes_per_step}."
        )
    stop = np.iinfo(np.int64).max if num_episodes is None else start + num_episodes
    stream = tf.data.Dataset.range(start, stop).map(
        unconverted(episodes), num_parallel_calls=tf.data.AUTOTUNE
    )
    # There are no files to divide among machines: each machine takes its part of every step.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    stream = stream.batch(episodes_per_step, drop_remainder=True).prefetch(2)
    return stream.with_options(options)


def random_key(
    seed: int, split: str, stream: int, number: Tensor, training: bool = False
) -> Tensor:
    """Returns a key [2] of TensorFlow's stateless generators.

    Args:
        seed: seed of the list of episodes.
        split: one of `SPLITS`.
        stream: number of the purpose of the random numbers: classes, images, augmentation.
        number: number of the episode.
        training: whether the episode is for training; lists of episodes have other keys.
    """
    split_number = SPLITS.index(split) + (len(SPLITS) if training else 0)
    key = tf.constant([seed, split_number], tf.int64)
    key = tf.random.fold_in(key, tf.constant(stream, tf.int64))
    return tf.random.fold_in(key, number)


def arrange(values: Tensor, spec: EpisodeSpec) -> tuple[dict[str, Tensor], Tensor]:
    """Splits values of images, [N, K + Q, ...], into support and queries, ordered shot by shot.

    Returns:
        The inputs and labels of an episode, as in `Episodes`.
    """
    by_shot = tf.transpose(values, [1, 0, *range(2, values.shape.rank)])
    labels = tf.tile(tf.range(spec.num_way), [spec.images_per_class])
    num_support = spec.num_way * spec.num_shot
    flat = tf.reshape(by_shot, [spec.num_way * spec.images_per_class, *values.shape[2:]])
    inputs = {
        "support_inputs": flat[:num_support],
        "support_labels": labels[:num_support],
        "query_inputs": flat[num_support:],
    }
    return inputs, labels[num_support:]
