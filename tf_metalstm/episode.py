"""The words and letters of the project, and the shape of an episode.

An *episode* is one small classification task: a few labelled *support* images of
each of its classes, and *query* images to classify after adapting to the support.
*Train*, *validation* and *test* are splits of the classes, never parts of an episode.

Letters, used in every docstring:

    E  episodes in a step            P  parameters of the learner
    N  ways: classes of an episode   S  batch-norm statistics of the learner
    K  shots: support images a class H  hidden units of the meta-learner
    Q  query images a class          B  images
    T  updates of the inner loop     h, w, c  image height, width, channels

Inside an episode images are ordered shot by shot, each shot holding one image of
each class in the order of the labels 0 ... N-1. So every run of N consecutive
support images is a balanced mini-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

Tensor = Any  # tf.Tensor or what converts to one; TensorFlow ships no types to check against


class Support(NamedTuple):
    """The labelled images that a method adapts to, of one episode.

    inputs: normalized images, [B, h, w, c].
    labels: integers in [0, N), [B].
    """

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class EpisodeSpec:
    """How large an episode is.

    num_way: N, classes of an episode.
    num_shot: K, support images a class.
    num_query: Q, query images a class.
    """

    num_way: int
    num_shot: int
    num_query: int

    def __post_init__(self) -> None:
        for name, smallest in (("num_way", 2), ("num_shot", 1), ("num_query", 1)):
            value = getattr(self, name)
            if value < smallest:
                raise ValueError(f"--{name} must be at least {smallest}, got {value}.")

    @property
    def images_per_class(self) -> int:
        """K + Q, the images that a class must have to be drawn."""
        return self.num_shot + self.num_query

    def __str__(self) -> str:
        return f"{self.num_way}-way {self.num_shot}-shot, {self.num_query} queries a class"
