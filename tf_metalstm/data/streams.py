"""Streams: images come one after the other, each with the label of the image before it.

Santoro et al., "Meta-Learning with Memory-Augmented Neural Networks", ICML 2016, section 2.1. A
stream has random classes with random labels. Each class is shown equally often, in random order. At
step t the input is x_t and y_{t-1}, and the output is compared with y_t. So at the first showing of
a class the answer can only be a guess; before the k-th showing there were k - 1 examples of it.

    paper       code               shape
    x_t         images             [T, h, w, c]
    y_{t-1}     previous_labels    [T], -1 at the first step
    y_t         labels             [T]
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_metalstm.data.episodes import ImageEpisodes
from tf_metalstm.data.options import AugmentationOptions, ImageClassOptions
from tf_metalstm.data.sources.base import Source
from tf_metalstm.data.tasks import STREAMS, ImageTasks
from tf_metalstm.episode import EpisodeSpec, Tensor
from tf_metalstm.options import option


@dataclass(frozen=True)
class StreamOptions(ImageClassOptions, AugmentationOptions):
    """Options of streams of images."""

    num_showings: int = option(10, "How often a stream shows each class.", at_least=2)


class StreamEpisodes(ImageEpisodes):
    """The streams by their number. Their images are drawn as for episodes."""

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns images float32 [T, h, w, c], previous_labels int32 [T]; labels int32 [T]."""
        episode, of_queries = super().__call__(index)
        images, labels = (
            tf.concat(parts, axis=0)
            for parts in (
                [episode["support_inputs"], episode["query_inputs"]],
                [episode["support_labels"], of_queries],
            )
        )
        order = self._order(index)
        labels = tf.gather(labels, order)
        return {
            "images": tf.gather(images, order),
            "previous_labels": tf.concat([[-1], labels[:-1]], axis=0),
        }, labels

    def fingerprint(self, num_episodes: int) -> str:
        """Returns a hash of streams 0 ... num_episodes - 1. Equal hashes mean equal lists."""
        digest = hashlib.sha256(self.sampler.fingerprint(num_episodes).encode())
        for index in range(num_episodes):
            digest.update(self._order(tf.constant(index, tf.int64)).numpy().tobytes())
        return digest.hexdigest()[:16]

    def _order(self, index: Tensor) -> Tensor:
        spec = self.sampler.spec
        length = spec.num_way * spec.images_per_class
        seed = self.sampler.order_seed(index)
        return tf.random.experimental.stateless_shuffle(tf.range(length), seed)


class StreamTasks(ImageTasks):
    """Streams of the images of a source; the arguments are those of `ImageTasks`.

    Only the number of ways and the images of a class are used from the spec.
    """

    kind = STREAMS

    @classmethod
    def of_stream(cls, source: Source, options: StreamOptions) -> StreamTasks:
        """Returns the streams of a source with these options."""
        return cls(
            source,
            EpisodeSpec(options.num_way, 1, options.num_showings - 1),
            options.normalization or "standard",
            options.augmentation,
            skip_small_classes=options.skip_small_classes,
        )

    def episodes(self, split: str, seed: int, training: bool = False) -> StreamEpisodes:
        """Returns the streams of a split; reads its images."""
        augmentation = self._augmentation if training else None
        sampler = self.sampler(split, seed, training)
        return StreamEpisodes(sampler, self.normalization, augmentation)

    @property
    def task(self) -> str:
        """Name of the task, such as "5 classes, 10 showings"."""
        return f"{self.spec.num_way} classes, {self.spec.images_per_class} showings"

    def sizes(self) -> dict[str, Any]:
        """Returns the numbers of classes and showings."""
        return {"num_way": self.spec.num_way, "num_showings": self.spec.images_per_class}


def showings(labels: np.ndarray) -> np.ndarray:
    """Returns for each step how often its class was shown before, [T].

    >>> showings(np.array([2, 0, 2, 2, 0])).tolist()
    [0, 0, 1, 2, 1]
    """
    counts = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        counts[labels == label] = np.arange(np.count_nonzero(labels == label))
    return counts
