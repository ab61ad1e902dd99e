"""Episodes of features that were computed once for each image.

In a list of 600 episodes an image comes several times: of the 12,000 test images of mini-ImageNet
each is in four of the 48,000 places of 5-way 1-shot episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from tf_metalstm.data.episodes import ImageEpisodes, arrange
from tf_metalstm.episode import Tensor

# Images that go through the network at a time.
_BATCH = 128


class FeatureEpisodes:
    """The same episodes, with the features of an image in its place.

    Args:
        episodes: of images, not augmented.
        num_episodes: that there are; which images they have is found out first. None for an endless
            stream, which has all images of the split.
    """

    def __init__(self, episodes: ImageEpisodes, num_episodes: int | None = None) -> None:
        self._episodes = episodes
        self._features: Tensor | None = None
        self._places: Tensor | None = None
        if num_episodes is None:
            self._rows = np.arange(len(episodes.sampler.classes.images))
            return
        rows_of = tf.function(episodes.rows)
        rows = np.stack([rows_of(tf.constant(i, tf.int64)).numpy() for i in range(num_episodes)])
        self._rows, places = np.unique(rows, return_inverse=True)
        self._places = tf.constant(places.reshape(rows.shape), tf.int32)
        self.num_places = rows.size

    @property
    def num_images(self) -> int:
        """How many different images there are."""
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
            most_bytes: that may be kept.
            progress: what shows how far it is, such as tqdm.

        Returns:
            False, after the first images, where they would take more.
        """
        found: list[np.ndarray] = []
        for start in progress(range(0, self.num_images, _BATCH)):
            some = features(self._episodes.images(self._rows[start : start + _BATCH])).numpy()
            if some[0].nbytes * self.num_images > most_bytes:
                return False
            found.append(some)
        with tf.device("CPU:0"):
            self._features = tf.constant(np.concatenate(found))
        return True

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns features [N*K, ...] and [N*Q, ...], named as such, and labels, int32."""
        if self._features is None:
            raise ValueError("The features are not computed yet: call compute first.")
        if self._places is None:
            places = self._episodes.rows(index)
        else:
            places = tf.gather(self._places, index)
        inputs, labels = arrange(tf.gather(self._features, places), self._episodes.sampler.spec)
        return {name.replace("inputs", "features"): x for name, x in inputs.items()}, labels

    def fingerprint(self, num_episodes: int) -> str:
        """Returns that of the episodes of images."""
        return self._episodes.fingerprint(num_episodes)
