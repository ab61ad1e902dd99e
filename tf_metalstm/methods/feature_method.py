"""The base class of methods that use only the features of images.

    summary = summarize(f(support images), labels)      stored from the support set
    logits  = compare(summary, f(queries))              one number for each class

Outside training the features of an image are the same in every episode; if the network is frozen,
also in training. So a list of episodes can be answered from features that were computed once for
each image.
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
    """Adapts by summarizing the features of the support set, and compares queries with it."""

    @abc.abstractmethod
    def features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the features of images [B, ...] -> [B, ...], in the precision of the method.

        Outside training the features of an image do not depend on the other images.
        """

    @abc.abstractmethod
    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Any:
        """Returns the summary of a support set, nested tensors.

        Args:
            features: features of its images, [B, ...].
            labels: labels of its images, in [0, N), [B].
            num_way: N.
        """

    def summarize_after(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int, num_steps: Tensor
    ) -> Any:
        """Returns the summary after T updates. Methods with updates have their own version."""
        raise NotImplementedError(f"{type(self).__name__} makes no updates.")

    def summarize_in_training(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Any:
        """Returns the summary of a support set in meta-training; default: the same."""
        return self.summarize(features, labels, num_way)

    @abc.abstractmethod
    def compare(self, summary: Any, features: Tensor, training: bool = False) -> Tensor:
        """Returns logits [B, N] of queries.

        Args:
            summary: what `summarize` returned.
            features: features of the queries, [B, ...].
            training: True in meta-training.
        """

    def adapt(self, support: Support, training: bool = False) -> Any:
        """Returns the summary of the support set."""
        features = self.support_features(support.inputs, training)
        summarize = self.summarize_in_training if training else self.summarize
        return summarize(features, support.labels, self._num_way(support.labels, training))

    def query_outputs(self, adapted: Any, query_inputs: Tensor, training: bool = False) -> Tensor:
        """Returns logits [B, N]."""
        return self.compare(adapted, self.features(query_inputs, training), training)

    def support_features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the features of a support set of any size."""
        return self.features(images, training)

    @property
    def features_are_frozen(self) -> bool:
        """Whether the features of an image also stay the same in training; default: no."""
        return False

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Adapts to each of the E support sets and answers its queries.

        Call arguments:
            inputs: the inputs of every few-shot method; or features instead of images, as
                support_features and query_features. Outside training, and if the features are
                frozen, the answers are the same.
            training: True in meta-training.
        """
        if "support_features" not in inputs:
            return super().call(inputs, training)
        training = bool(training)
        return self.each_episode(lambda episode: self._from_features(episode, training), inputs)

    def _from_features(self, episode: dict[str, Tensor], training: bool) -> Tensor:
        labels = episode["support_labels"]
        summarize = self.summarize_in_training if training else self.summarize
        summary = summarize(episode["support_features"], labels, self._num_way(labels, training))
        outputs = self.compare(summary, episode["query_features"], training)
        if training:
            return outputs
        return without_absent_classes(outputs, class_mask(labels, tf.shape(outputs)[-1]))

    def _num_way(self, labels: Tensor, training: bool) -> Tensor | int:
        del training
        return num_classes(labels)
