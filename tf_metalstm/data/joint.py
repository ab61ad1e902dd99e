"""Ordinary batches, for training on all classes together: batch i is a pure function of (seed, i).

They have the form of an episode without a support set, so that the outer loop, its
checkpoints and its way to resume know nothing new. A pass takes every image once, in an
order of its own, a whole permutation that is drawn anew for every batch: 0.5 ms for 38,400
images, 0.7 ms for 88,000. What is left over at its end and fills no batch is left out.
"""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

from tf_metalstm.data.episodes import random_key
from tf_metalstm.data.preprocessing import Augmentation, Normalization
from tf_metalstm.data.sources.base import ClassImages
from tf_metalstm.episode import Tensor

# Told apart from the streams of an episode's classes, images and augmentation.
_ORDER, _AUGMENTATION = 3, 4


class JointBatches:
    """Batches over all classes of the training split; implements `Episodes`.

    Args:
        classes: the images of the split.
        batch_size: B.
        normalization: of pixels.
        augmentation: of each image by itself, or None.
        seed: of the order.

    Raises:
        ValueError: there are fewer images than a batch takes, or classes would be turned.
    """

    def __init__(
        self,
        classes: ClassImages,
        batch_size: int,
        normalization: Normalization,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ):
        sizes = np.asarray(classes.class_sizes)
        self._num_images = int(sizes.sum())
        if not 1 <= batch_size <= self._num_images:
            raise ValueError(
                f"joint_batch_size must be between 1 and the {self._num_images} images of the "
                f"training split, got {batch_size}."
            )
        if augmentation is not None and "turn" in augmentation.names:
            raise ValueError(
                "augmentation=turn makes another class of each class of an episode; in the joint "
                "training of nearest_neighbor a turned image would keep its label: leave it out."
            )
        self.batch_size, self.seed = batch_size, seed
        self._normalization, self._augmentation = normalization, augmentation
        with tf.device("CPU:0"):  # a data set of images may be larger than a GPU
            self._images = tf.constant(classes.images)
            self._labels = tf.constant(np.repeat(np.arange(len(sizes)), sizes), tf.int32)

    def rows(self, index: Tensor) -> Tensor:
        """Returns which images make up batch `index`, [B] numbers in [0, images)."""
        a_pass = self._num_images // self.batch_size  # batches
        index = tf.cast(index, tf.int64)
        key = random_key(self.seed, "train", _ORDER, index // a_pass, training=True)
        # Not index_shuffle: its permutations of two passes have batches in common.
        order = tf.random.experimental.stateless_shuffle(tf.range(self._num_images), key)
        first = tf.cast(index % a_pass, tf.int32) * self.batch_size
        return tf.slice(order, [first], [self.batch_size])  # of a shape that a graph knows

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns query_inputs [B, h, w, c] beside an empty support set, and class numbers [B]."""
        rows = self.rows(index)
        pixels = tf.gather(self._images, rows)
        if self._augmentation is not None:
            number = tf.cast(index, tf.int64)
            key = random_key(self.seed, "train", _AUGMENTATION, number, training=True)
            pixels = self._augmentation(pixels[:, tf.newaxis], key)[:, 0]
        inputs = {
            "support_inputs": tf.zeros([0, *pixels.shape[1:]], tf.float32),
            "support_labels": tf.zeros([0], tf.int32),
            "query_inputs": self._normalization(pixels),
        }
        return inputs, tf.gather(self._labels, rows)

    def fingerprint(self, num_episodes: int) -> str:
        """Returns a hash of which images the first batches have."""
        digest = hashlib.sha256(f"joint, {self._num_images} images".encode())
        for index in range(num_episodes):
            digest.update(f"\n{self.rows(tf.constant(index)).numpy().tolist()}".encode())
        return digest.hexdigest()[:16]
