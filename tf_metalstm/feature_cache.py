"""Replaces images by their features, for methods that only use features.

An image is in many episodes. If its features are the same in all of them, it goes through the
network only once. This is so in lists of validation and test, and in training if the network is
frozen.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from typing import Any, TypeGuard

import tqdm

from tf_metalstm.data.episodes import Episodes, ImageEpisodes
from tf_metalstm.data.feature_episodes import FeatureEpisodes
from tf_metalstm.graphs import graph_function
from tf_metalstm.methods.base import Method
from tf_metalstm.methods.feature_method import FeatureMethod

# Features that are kept.
_MOST_BYTES = 2**29


def list_by_features(method: Method, episodes: Episodes, num_episodes: int) -> Episodes:
    """Returns a list with features instead of images if that saves passes; else the same list.

    Args:
        method: the trained method that will answer the list.
        episodes: the episodes of a split.
        num_episodes: length of the list.
    """
    if not isinstance(method, FeatureMethod) or not _are_images(episodes):
        return episodes
    by_features = FeatureEpisodes(episodes, num_episodes)
    if by_features.num_images >= by_features.num_places:
        return episodes
    return by_features if _compute(by_features, method) else episodes


def stream_by_features(method: Method, episodes: Episodes) -> Episodes:
    """Returns a stream with features instead of images if the network is frozen; else the same.

    Args:
        method: the method to train.
        episodes: the training episodes, without end.
    """
    is_frozen = isinstance(method, FeatureMethod) and method.features_are_frozen
    if not is_frozen or not _are_images(episodes):
        return episodes
    by_features = FeatureEpisodes(episodes)
    return by_features if _compute(by_features, method) else episodes


def _are_images(episodes: Episodes) -> TypeGuard[ImageEpisodes]:
    return isinstance(episodes, ImageEpisodes) and not episodes.is_augmented


def _compute(episodes: FeatureEpisodes, method: Any) -> bool:
    features = graph_function(method.features, reduce_retracing=True)
    bar = functools.partial(progress_bar, unit="batch of images", leave=False)
    return episodes.compute(features, _MOST_BYTES, bar)


def progress_bar(iterable: Iterable[Any], **options: Any) -> Iterable[Any]:
    """Adds a progress bar to an iterable; a log file gets few lines."""
    interval = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm.tqdm(iterable, mininterval=interval, **{"disable": None, **options})
