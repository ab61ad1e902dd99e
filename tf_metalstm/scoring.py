"""The scores of a trained method on a list of episodes."""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf
import tqdm

from tf_metalstm.methods.base import FewShotMethod


def episode_scores(
    method: FewShotMethod,
    episodes: tf.data.Dataset,
    num_outputs: int,
    one_of_many: bool = False,
) -> tuple[np.ndarray, int]:
    """Returns the score of each episode, [episodes], and how many have outputs that are no numbers.

    Args:
        method: the trained method.
        episodes: a list, as `episode_dataset` makes it.
        num_outputs: of the episodes. With fewer ways than the learner has outputs, only the
            outputs in use can be answers.
        one_of_many: lists, so that the progress bar goes when it is done, and a log file has none.
    """

    @tf.function
    def answer(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return method(inputs, training=False)[..., :num_outputs]

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
        num_diverged += int(np.sum(np.any(np.isnan(outputs), axis=(-2, -1))))
    return np.asarray(scores), num_diverged
