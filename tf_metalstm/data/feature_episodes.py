"""Episodes of features that were computed once for each image.

In a list of 600 episodes an image occurs several times: the list of 5-way 1-shot episodes has
48,000 places for the 12,000 test images of mini-ImageNet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from tf_metalstm.data.episodes import ImageEpisodes, arrange
from tf_metalstm.episode import Tensor
from tf_metalstm.graphs import graph_function

# Images in one pass of the network.
_BATCH = 128


class FeatureEpisodes:
    """Episodes with features instead of images.

    Args:
        episodes: episodes of images without augmentation.
        num_episodes: length of the list; only the features of its images are computed. None for an
            endless stream, which may have all images of the split.
    """

    def __init__(self, episodes: ImageEpisodes, num_episodes: int | None = None) -> None:
        self._episodes = episodes
        self._features: Tensor | None = None
        self._places: Tensor | None = None
        if num_episodes is None:
            self._rows = np.arange(len(episodes.sampler.classes.images))
            return
        rows_of = graph_function(episodes.rows)
        rows = np.stack([rows_of(tf.constant(i, tf.int64)).numpy() for i in range(num_episodes)])
        self._rows, places = np.unique(rows, return_inverse=True)
        self._places = tf.constant(places.reshape(rows.shape), tf.int32)
        self.num_places = rows.size

    @property
    def num_images(self) -> int:
        """Number of different images."""
        return len(self._rows)

    def compute(
        self,
        features: Callable[[Tensor], Tensor],
        most_bytes: int,
        progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    ) -> bool:
        """Computes the features of all images.

        Args:
            features: images [B, h, w, c] -> features [B, ...].
            most_bytes: largest memory for the features.
            progress: a progress bar, such as tqdm.

        Returns:
            False if the features would take more memory; then only the first ones were computed.
        """
        batches: list[np.ndarray] = []
        for start in progress(range(0, self.num_images, _BATCH)):
            some = features(self._episodes.images(self._rows[start : start + _BATCH])).numpy()
            if some[0].nbytes * self.num_images > most_bytes:
                return False
            batches.append(some)
        with tf.device("CPU:0"):
            self._features = tf.constant(np.concatenate(batches))
        return True

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns support features [N*K, ...] and query features [N*Q, ...] by name, and labels."""
        if self._features is None:
            raise ValueError("The features are not computed yet: call compute first.")
        if self._places is None:
            places = self._episodes.rows(index)
        else:
            places = tf.gather(self._places, index)
        inputs, labels = arrange(tf.gather(self._features, places), self._episodes.sampler.spec)
        return {name.replace("inputs", "features"): x for name, x in inputs.items()}, labels

    def fingerprint(self, num_episodes: int) -> str:
        """Returns the fingerprint of the episodes of images."""
        return self._episodes.fingerprint(num_episodes)
