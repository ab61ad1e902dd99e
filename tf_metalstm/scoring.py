"""The scores of a trained method on a list of episodes, computed in a quick way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_metalstm.data.episodes import Episodes, episode_dataset
from tf_metalstm.episode import Tensor
from tf_metalstm.feature_cache import list_by_features, progress_bar
from tf_metalstm.graphs import graph_function
from tf_metalstm.methods.base import Method
from tf_metalstm.methods.few_shot import FewShotMethod

# Number of episodes in one call, and of their images together.
_EPISODES, _IMAGES = 20, 2000

_OF_IMAGES = ("support_inputs", "query_inputs", "support_features", "query_features")

Answer = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]
"""Inputs of E episodes -> their outputs, and the transductive ones where both are asked for."""


class Questions(NamedTuple):
    """A list of episodes, prepared for the method.

    stream: the episodes, several at a time; some have features in place of images.
    answer: function that gives the outputs; an argument of `episode_scores`.
    """

    stream: tf.data.Dataset
    answer: Answer


class Scores(NamedTuple):
    """The scores of a method on a list.

    scores: score of each episode, [episodes].
    num_diverged: number of episodes with outputs that are NaN or infinite.
    transductive: scores with queries that are normalized together, [episodes]; None if this was not
        asked for, or if the method has no such mode.
    """

    scores: np.ndarray
    num_diverged: int
    transductive: np.ndarray | None = None


def questions(
    method: Method, episodes: Episodes, num_episodes: int, both_modes: bool = False
) -> Questions:
    """Returns a list in a form that is answered quickly: the same episodes, the same answers.

    If a method only uses features, and these take at most half a gigabyte, each image goes through
    the network only once, even if many episodes have it.

    Args:
        method: the trained method.
        episodes: the episodes of a split.
        num_episodes: length of the list.
        both_modes: whether to use both modes of batch norm, if the method has a transductive one
            besides its own.
    """
    answer = _plain(method)
    if both_modes and isinstance(method, FewShotMethod) and method.transductive_mode is not None:
        answer = _in_both_modes(method)
    episodes = list_by_features(method, episodes, num_episodes)
    stream = episode_dataset(
        episodes,
        num_episodes=num_episodes,
        episodes_per_step=_at_a_time(episodes, num_episodes),
    )
    return Questions(stream, answer)


def _plain(method: Method) -> Answer:
    return lambda inputs: (method(inputs, training=False),)


def _in_both_modes(method: FewShotMethod) -> Answer:
    return lambda inputs: tuple(tf.unstack(method.answers_in_both_modes(inputs), axis=1))


def _at_a_time(episodes: Episodes, num_episodes: int) -> int:
    """Returns the number of episodes in a step, which divides the length of the list."""
    inputs, _ = episodes(tf.constant(0, tf.int64))
    images = sum(len(inputs[name]) for name in _OF_IMAGES if name in inputs)
    most = max(1, min(_EPISODES, _IMAGES // images)) if images else 1
    return max(size for size in range(1, most + 1) if num_episodes % size == 0)


def episode_scores(
    method: Method,
    episodes: tf.data.Dataset,
    one_of_many: bool = False,
    each: Callable[[np.ndarray, np.ndarray], None] | None = None,
    answer: Answer | None = None,
) -> Scores:
    """Returns the score of each episode.

    Args:
        method: the trained method.
        episodes: a list made by `episode_dataset`.
        one_of_many: whether there are several lists. The progress bar then disappears at the end,
            and a log file gets none.
        each: function that is called with labels [B, ...] and outputs [B, ...] of every episode.
        answer: function that gives outputs in place of the method, see `questions`.
    """
    asked = answer or _plain(method)

    @graph_function
    def outputs_of(inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        return asked(inputs)

    scores: list[float] = []
    transductive: list[float] = []
    num_diverged = 0
    disable = None if one_of_many else False  # None: no bar without a terminal
    bar = progress_bar(
        episodes, total=len(episodes), unit="step", leave=not one_of_many, disable=disable
    )
    for inputs, labels in bar:
        outputs, *others = outputs_of(inputs)
        for other in others:
            transductive.extend(method.objective.scores(labels, other).numpy())
        of_step = method.objective.scores(labels, outputs).numpy()
        scores.extend(of_step)
        if each is not None:
            for one in zip(labels.numpy(), outputs.numpy(), strict=True):
                each(*one)
        is_nan = np.isnan(outputs).reshape(len(outputs), -1).any(axis=1)
        num_diverged += int(np.sum(is_nan | ~np.isfinite(of_step)))
    other_mode = np.asarray(transductive) if transductive else None
    return Scores(np.asarray(scores), num_diverged, other_mode)
