"""The scores of a trained method on a list of episodes."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tqdm

from tf_metalstm.methods.base import Method


def episode_scores(
    method: Method,
    episodes: tf.data.Dataset,
    one_of_many: bool = False,
    each: Callable[[np.ndarray, np.ndarray], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Returns the score of each episode, [episodes], and how many have outputs that are no numbers.

    Args:
        method: the trained method.
        episodes: a list, as `episode_dataset` makes it.
        one_of_many: lists, so that the progress bar goes when it is done, and a log file has none.
        each: called with the labels [B, ...] and the outputs [B, ...] of every episode in turn.
    """

    @tf.function
    def answer(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return method(inputs, training=False)

    total = int(episodes.cardinality())
    scores: list[float] = []
    num_diverged = 0
    interval = 0.2 if sys.stderr.isatty() else 30.0  # a log file wants few lines
    bar = tqdm.tqdm(
        episodes,
        total=total,
        unit="step",
        mininterval=interval,
        leave=not one_of_many,
        disable=None if one_of_many else False,  # None: where no terminal is
    )
    for inputs, labels in bar:
        outputs = answer(inputs)
        scores.extend(method.objective.scores(labels, outputs).numpy())
        if each is not None:
            for one in zip(labels.numpy(), outputs.numpy(), strict=True):
                each(*one)
        num_diverged += int(np.sum(np.isnan(outputs).reshape(len(outputs), -1).any(axis=1)))
    return np.asarray(scores), num_diverged
