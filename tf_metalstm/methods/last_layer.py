"""The last layer of methods that change nothing else in an episode, and where it starts.

The last layer is linear, on features f(x) of length 1, with a row for each class:

    logits = s (w_k . f(x) + b_k)            of class k

The logarithm of s is learned. `--head_start` chooses the first rows. c_k is the mean of the
features of class k, X are the features with a column of ones, and Y are the classes, one-hot:

    prototypes   w_k = c_k / |c_k|,  b_k = 0              Snell et al., NIPS 2017
    ridge        W = argmin 1/B |X W - Y|^2 + l |W|^2     Bertinetto et al., ICLR 2019; l is learned
    zeros        w_k = 0,  b_k = 0

All classes are treated alike, so such a method takes any number of classes. With frozen features
each image goes through the network only once, also in training.

    in words     code        shape
    f            embedding   [B, h, w, c] -> [B, D]
    w_k, b_k     rows        [N, D + 1]
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.class_means import class_means
from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import TrainedOptions
from tf_metalstm.methods.embedding_method import EmbeddingMethod
from tf_metalstm.options import option
from tf_metalstm.ridge import regression, with_ones

HEAD_STARTS = ("prototypes", "ridge", "zeros")


@dataclass(frozen=True)
class LastLayerOptions(TrainedOptions):
    """Options of methods that change only the last layer."""

    head_start: str = option(
        "prototypes",
        "First weights of the last layer: the directions of the class means (prototypes), those of "
        "a ridge regression, or zeros.",
        choices=HEAD_STARTS,
        settled=True,
    )
    logit_scale: float = option(
        10.0, "Initial value of s, the learned factor on the logits.", above=0, settled=True
    )
    start_penalty: float = option(
        0.1,
        "Initial value of the learned penalty of the ridge regression.",
        above=0,
        settled=True,
        only_with={"head_start": "ridge"},
    )
    learn_features: bool = option(
        True, "Train the network together with the rule; otherwise it is frozen.", settled=True
    )

    def of_last_layer(self) -> dict[str, Any]:
        """Returns these options as arguments of `LastLayerMethod`."""
        names = ("head_start", "logit_scale", "start_penalty", "learn_features")
        return {name: getattr(self, name) for name in names}


class LastLayer(NamedTuple):
    """What `adapt` returns for a support set.

    rows: w_k and b_k of each class, [N, D + 1].
    """

    rows: Tensor


def last_layer_logits(features: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    """Returns s (w_k . f(x) + b_k), [B, N], from features with a column of ones, [B, D + 1]."""
    return scale * tf.matmul(features, rows, transpose_b=True)


class LastLayerMethod(EmbeddingMethod, abc.ABC):
    """A method that changes only the last layer in an episode.

    Args:
        embedding: images -> features.
        training_way: see `EmbeddingMethod`.
        head_start: "prototypes", "ridge" or "zeros".
        logit_scale: initial value of s; positive.
        start_penalty: initial value of the penalty of the ridge regression; positive.
        learn_features: whether the embedding is trained.
    """

    starts_from: ClassVar[tuple[str, ...]] = ("nearest_neighbor", "prototypical_networks")
    has_unit_features = True

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        *,
        head_start: str = "prototypes",
        logit_scale: float = 10.0,
        start_penalty: float = 0.1,
        learn_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, **kwargs)
        LastLayerOptions(  # checks them
            head_start=head_start, logit_scale=logit_scale, start_penalty=start_penalty
        )
        if not learn_features:
            embedding.trainable = False
        self.learn_features = learn_features
        self.head_start = head_start
        self.logit_scale, self.start_penalty = logit_scale, start_penalty
        self.log_scale = self._add_log("scale", logit_scale)
        self.log_penalty = None
        if head_start == "ridge":
            self.log_penalty = self._add_log("penalty", start_penalty)

    def _add_log(self, of: str, begin: float) -> keras.Variable:
        initial = keras.initializers.Constant(math.log(begin))
        return self.add_weight(shape=(), initializer=initial, name=f"log_{of}")

    @property
    def num_features(self) -> int:
        """D."""
        [num_features] = self.embedding.output_shape[1:]
        return num_features

    def scale(self) -> Tensor:
        """Returns s, a scalar."""
        return tf.exp(tf.convert_to_tensor(self.log_scale))

    def first_rows(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Tensor:
        """Returns the rows before the first update, [N, D + 1].

        Args:
            features: features of the support images, of length 1, [B, D].
            labels: their labels, [B].
            num_way: N.
        """
        if self.head_start == "ridge":
            penalty = tf.exp(tf.convert_to_tensor(self.log_penalty))
            return tf.transpose(regression(features, labels, num_way, penalty))
        means = class_means(features, labels, num_way)
        directions = tf.math.l2_normalize(means, axis=-1)
        rows = tf.concat([directions, tf.zeros_like(means[:, :1])], axis=1)
        return tf.zeros_like(rows) if self.head_start == "zeros" else rows

    def compare(self, summary: LastLayer, features: Tensor, training: bool = False) -> Tensor:
        """Returns the logits of the last layer, [B, N]."""
        return last_layer_logits(with_ones(features), summary.rows, self.scale())

    def facts(self) -> dict[str, Any]:
        """Returns the learned values of s and the penalty."""
        learned = {"logit_scale": self.log_scale}
        if self.log_penalty is not None:
            learned["start_penalty"] = self.log_penalty
        return {
            name: round(float(keras.ops.convert_to_numpy(keras.ops.exp(log))), 6)
            for name, log in learned.items()
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        return {
            **super().get_config(),
            "head_start": self.head_start,
            "logit_scale": self.logit_scale,
            "start_penalty": self.start_penalty,
            "learn_features": self.learn_features,
        }
