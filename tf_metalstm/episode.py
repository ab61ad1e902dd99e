"""The words and letters of the project, and the size of an episode.

An *episode* is one small classification task: a few labelled *support* images of
each of its classes, and *query* images to classify after adaptation to the support.
*Train*, *validation* and *test* are splits of the classes, never parts of an episode.

Letters, used in every docstring:

    E  episodes in a step            P  parameters of the learner
    N  ways: classes of an episode   S  batch-norm statistics of the learner
    K  shots: support images a class H  hidden units of the meta-learner
    Q  query images a class          B  images
    T  updates of the inner loop     h, w, c  image height, width, channels

Inside an episode images are ordered shot by shot. Each shot has one image of each class,
in the order of the labels 0 ... N-1. So any N consecutive support images are a balanced
mini-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from tf_metalstm.options import OptionError

Tensor = Any  # a tf.Tensor, or a value that converts to one; TensorFlow has no types for mypy


class Support(NamedTuple):
    """The labelled images of one episode, to which a method adapts.

    inputs: normalized images, [B, h, w, c]; or the arguments of a function, [B, D].
    labels: integers in [0, N), [B]; or the values of the function, [B, 1].
    """

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class EpisodeSpec:
    """The size of an episode.

    num_way: N, number of classes; 1 if the task is a function without classes.
    num_shot: K, number of support images of each class.
    num_query: Q, number of query images of each class.
    """

    num_way: int
    num_shot: int
    num_query: int

    def __post_init__(self) -> None:
        for name in ("num_way", "num_shot", "num_query"):
            value = getattr(self, name)
            if value < 1:
                raise OptionError(name, f"must be at least 1, got {value}.")

    @property
    def images_per_class(self) -> int:
        """K + Q, the number of images that a class must have."""
        return self.num_shot + self.num_query

    @property
    def task(self) -> str:
        """The name of the task in tables of papers.

        >>> EpisodeSpec(5, 1, 15).task, EpisodeSpec(1, 10, 10).task
        ('5-way 1-shot', '10-shot')
        """
        shots = f"{self.num_shot}-shot"
        return shots if self.num_way == 1 else f"{self.num_way}-way {shots}"

    def __str__(self) -> str:
        queries = f"{self.num_query} queries"
        return f"{self.task}, {queries if self.num_way == 1 else queries + ' a class'}"
