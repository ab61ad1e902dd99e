"""What methods share that see nothing of an image but its features.

    summary = summarize(f(support images), labels)      what is remembered of the support set
    logits  = compare(summary, f(queries))              one number for each class

Outside of training the features of an image are the same in every episode. So a list of episodes
can be answered from features that were computed once for each image: `answers_from_features`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tf_metalstm.episode import Support, Tensor
from tf_metalstm.methods.few_shot import (
    FewShotMethod,
    class_mask,
    num_classes,
    without_absent_classes,
)


class FeatureMethod(FewShotMethod, abc.ABC):
    """Adapting is summarizing the features of the support set, answering is comparing with it."""

    @abc.abstractmethod
    def features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the features of images [B, ...] -> [B, ...], in the precision of the method.

        Outside of training those of one image are independent of the others.
        """

    @abc.abstractmethod
    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Any:
        """Returns what is remembered of a support set, nested tensors.

        Args:
            features: of its images, [B, ...].
            labels: of its images, in [0, N), [B].
            num_way: N.
        """

    @abc.abstractmethod
    def compare(self, summary: Any, features: Tensor, training: bool = False) -> Tensor:
        """Returns logits [B, N] of queries.

        Args:
            summary: as `summarize` returned it.
            features: of the queries, [B, ...].
            training: True in meta-training.
        """

    def adapt(self, support: Support, training: bool = False) -> Any:
        """Returns what is remembered of the support set."""
        features = self.support_features(support.inputs, training)
        return self.summarize(features, support.labels, self._num_way(support.labels, training))

    def query_outputs(self, adapted: Any, query_inputs: Tensor, training: bool = False) -> Tensor:
        """Returns logits [B, N]."""
        return self.compare(adapted, self.features(query_inputs, training), training)

    def support_features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the features of a support set of any size."""
        return self.features(images, training)

    def answers_from_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns what `call` returns outside of training, [E, N*Q, N].

        Args:
            inputs: as `call` takes them, with the features of images in their place.
        """

        def one_episode(episode: dict[str, Tensor]) -> Tensor:
            labels = episode["support_labels"]
            num_way = self._num_way(labels, training=False)
            summary = self.summarize(episode["support_inputs"], labels, num_way)
            outputs = self.compare(summary, episode["query_inputs"])
            return without_absent_classes(outputs, class_mask(labels, tf.shape(outputs)[-1]))

        return self.each_episode(one_episode, inputs)

    def _num_way(self, labels: Tensor, training: bool) -> Tensor | int:
        del training
        return num_classes(labels)
