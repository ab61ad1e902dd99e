"""A rule updates only the last layer; the features do not change in an episode.

Raghu, Raghu, Bengio & Vinyals, "Rapid learning or feature reuse? Towards understanding the
effectiveness of MAML", ICLR 2020, section 4: almost no inner loop (ANIL). The head is linear, on
features f(x) of length 1, with a row for each class:

    logits = s (w_k . f(x) + b_k)            of class k
    theta  = w_1, b_1, ..., w_N, b_N         moved by T updates of the rule, on the support set

The logarithm of s is learned. s is a factor on the logits and not a part of w, so an update with a
given learning rate changes the logits by s^2 times as much. The input gate of a meta-LSTM needs
this, because it cannot give a learning rate above 1. `--head_start` chooses theta_0. c_k is the
mean of the features of class k, X are the features with a column of ones, and Y are the classes,
one-hot:

    prototypes   w_k = c_k / |c_k|,  b_k = 0              Snell et al., NIPS 2017
    ridge        W = argmin 1/B |X W - Y|^2 + l |W|^2     Bertinetto et al., ICLR 2019; l is learned
    zeros        w_k = 0,  b_k = 0

All classes are treated alike, so the method takes any number of classes. With frozen features each
image goes through the network only once, also in training.

    paper     code        shape
    f         embedding   [B, h, w, c] -> [B, D]
    theta                 [N (D + 1)]
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop, InnerLoopOptions, unroll, unroll_in_loop
from tf_metalstm.class_means import class_means
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.base import LOSSES, Builder, TrainedOptions
from tf_metalstm.methods.embedding_method import EmbeddingMethod
from tf_metalstm.objectives import cross_entropy
from tf_metalstm.options import OptionError, option
from tf_metalstm.parameters import Blocks, blocks_of
from tf_metalstm.parts import Part
from tf_metalstm.ridge import regression, with_ones
from tf_metalstm.rules.base import Rule

HEAD_STARTS = ("prototypes", "ridge", "zeros")


@dataclass(frozen=True)
class HeadAdaptationOptions(TrainedOptions, InnerLoopOptions):
    """Options of methods that update only the last layer."""

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


class HeadState(NamedTuple):
    """What `adapt` returns for a support set.

    rows: w_k and b_k of each class, [N, D + 1].
    """

    rows: Tensor


@dataclass(frozen=True)
class HeadProblem:
    """The loss of the last layer on the features of a support set.

    features: features of the support images with a column of ones, [B, D + 1].
    labels: labels of the support images, [B].
    scale: s, a scalar.
    """

    features: Tensor
    labels: Tensor
    scale: Tensor

    def initial_carry(self) -> tuple[()]:
        """Returns (): the loss only depends on theta."""
        return ()

    def loss(self, theta: Tensor, carry: Any, step: Any) -> tuple[Tensor, Any]:
        """Returns the cross-entropy at theta [N (D + 1)], and the carry ()."""
        del step
        rows = tf.reshape(theta, [-1, self.features.shape[1]])
        return cross_entropy(self.labels, head_logits(self.features, rows, self.scale)), carry

    def gradient_scale(self) -> float:
        """Returns 1."""
        return 1.0


def head_logits(features: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    """Returns s (w_k . f(x) + b_k), [B, N], from features with a column of ones, [B, D + 1]."""
    return scale * tf.matmul(features, rows, transpose_b=True)


@keras.saving.register_keras_serializable("tf_metalstm")
class HeadAdaptation(EmbeddingMethod):
    """Adapts by T updates of the last layer by a rule.

    Args:
        embedding: images -> features.
        rule: the rule that updates the last layer; it is built here.
        inner_loop: options of the inner loop, such as the number of updates.
        training_way: see `EmbeddingMethod`.
        num_evaluation_steps: updates outside meta-training; None for the same number.
        head_start: "prototypes", "ridge" or "zeros".
        logit_scale: initial value of s; positive.
        start_penalty: initial value of the penalty of the ridge regression; positive.
        learn_features: whether the embedding is trained.
        name: do not change it: checkpoints find the weights by it.
    """

    part = Part(
        "head_adaptation",
        "Updates of only the last layer (ANIL)",
        "Raghu et al., ICLR 2020",
        HeadAdaptationOptions,
        needs=("learner", "rule"),
    )
    starts_from: ClassVar[tuple[str, ...]] = ("nearest_neighbor", "prototypical_networks")
    has_unit_features = True

    def __init__(
        self,
        embedding: keras.Model,
        rule: Rule,
        inner_loop: InnerLoop,
        training_way: int | None = None,
        *,
        num_evaluation_steps: int | None = None,
        head_start: str = "prototypes",
        logit_scale: float = 10.0,
        start_penalty: float = 0.1,
        learn_features: bool = True,
        name: str = "head_adaptation",
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, name=name, **kwargs)
        HeadAdaptationOptions(  # checks them
            head_start=head_start, logit_scale=logit_scale, start_penalty=start_penalty
        )
        if not rule.takes_rows:
            raise OptionError(
                "rule",
                f"{rule.part.name} needs a fixed number of parameters, and the last layer has a "
                "row for each class: use another rule.",
            )
        if not learn_features:
            embedding.trainable = False
        self.learn_features = learn_features
        self.inner_loop = self.evaluation_loop = inner_loop
        if num_evaluation_steps is not None:
            self.evaluation_loop = dataclasses.replace(inner_loop, num_steps=num_evaluation_steps)
        self.head_start = head_start
        self.logit_scale, self.start_penalty = logit_scale, start_penalty
        if not rule.built:
            rule.build(self.blocks)
        self.rule = rule
        self.log_scale = self._add_log("scale", logit_scale)
        self.log_penalty = None
        if head_start == "ridge":
            self.log_penalty = self._add_log("penalty", start_penalty)
        self.built = True

    def _add_log(self, of: str, begin: float) -> keras.Variable:
        initial = keras.initializers.Constant(math.log(begin))
        return self.add_weight(shape=(), initializer=initial, name=f"log_{of}")

    @classmethod
    def from_options(cls, options: HeadAdaptationOptions, builder: Builder) -> HeadAdaptation:
        """Returns the method with a fresh embedding and rule."""
        return cls(
            embedding_of(builder.network(1, cls.statistics_momentum)),
            builder.rule(),
            options.inner_loop(),
            builder.tasks.training_way,
            num_evaluation_steps=options.num_evaluation_steps,
            head_start=options.head_start,
            logit_scale=options.logit_scale,
            start_penalty=options.start_penalty,
            learn_features=options.learn_features,
        )

    @property
    def blocks(self) -> Blocks:
        """The tensors of a row of the last layer."""
        row = blocks_of([("linear/kernel", (self._num_features, 1)), ("linear/bias", (1,))])
        return tuple(block._replace(per_class=True) for block in row)

    @property
    def num_updates(self) -> int:
        """T outside meta-training."""
        return self.evaluation_loop.num_steps

    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> HeadState:
        """Returns the last layer after the updates outside training."""
        return self._updated(features, labels, num_way, self.evaluation_loop)[0]

    def summarize_in_training(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int
    ) -> HeadState:
        """Returns the last layer after the updates in training."""
        return self._updated(features, labels, num_way, self.inner_loop)[0]

    def compare(self, summary: HeadState, features: Tensor, training: bool = False) -> Tensor:
        """Returns the logits of the last layer, [B, N]."""
        return head_logits(with_ones(features), summary.rows, self._scale())

    def adapt_and_trace(
        self, support: Support, num_steps: Tensor | None = None
    ) -> tuple[HeadState, dict[str, Tensor]]:
        """Returns also the support losses [T] and the trace of the rule, [T, ...]."""
        features = self.support_features(support.inputs)
        num_way = self._num_way(support.labels, training=False)
        return self._updated(features, support.labels, num_way, self.evaluation_loop, num_steps)

    def _updated(
        self,
        features: Tensor,
        labels: Tensor,
        num_way: Tensor | int,
        loop: InnerLoop,
        num_steps: Tensor | None = None,
    ) -> tuple[HeadState, dict[str, Tensor]]:
        problem = HeadProblem(with_ones(features), labels, self._scale())
        theta_0 = self._theta_0(features, labels, num_way)
        if num_steps is None:
            unrolled = unroll(self.rule, problem, theta_0, loop)
        else:
            unrolled = unroll_in_loop(self.rule, problem, theta_0, loop, num_steps)
        trace = {LOSSES: unrolled.trajectory.losses, **unrolled.trajectory.traces}
        return HeadState(tf.reshape(unrolled.theta, [-1, self._num_features + 1])), trace

    def _scale(self) -> Tensor:
        return tf.exp(tf.convert_to_tensor(self.log_scale))

    @property
    def _num_features(self) -> int:
        [num_features] = self.embedding.output_shape[1:]
        return num_features

    def _theta_0(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Tensor:
        if self.head_start == "ridge":
            penalty = tf.exp(tf.convert_to_tensor(self.log_penalty))
            rows = tf.transpose(regression(features, labels, num_way, penalty))
        else:
            means = class_means(features, labels, num_way)
            directions = tf.math.l2_normalize(means, axis=-1)
            rows = tf.concat([directions, tf.zeros_like(means[:, :1])], axis=1)
            if self.head_start == "zeros":
                rows = tf.zeros_like(rows)
        return tf.reshape(rows, [-1])

    def facts(self) -> dict[str, Any]:
        """Returns the rule and the learned values of s and the penalty."""
        learned = {"logit_scale": self.log_scale}
        if self.log_penalty is not None:
            learned["start_penalty"] = self.log_penalty
        numbers = {
            name: round(float(keras.ops.convert_to_numpy(keras.ops.exp(log))), 6)
            for name, log in learned.items()
        }
        return {"rule": type(self.rule).__name__, **numbers}

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        return {
            **super().get_config(),
            "rule": keras.saving.serialize_keras_object(self.rule),
            "inner_loop": dataclasses.asdict(self.inner_loop),
            "num_evaluation_steps": self.evaluation_loop.num_steps,
            "head_start": self.head_start,
            "logit_scale": self.logit_scale,
            "start_penalty": self.start_penalty,
            "learn_features": self.learn_features,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> HeadAdaptation:
        """Returns a method from what `get_config` returned."""
        rule = keras.saving.deserialize_keras_object(config["rule"], custom_objects)
        inner_loop = InnerLoop(**config["inner_loop"])
        return super().from_config({**config, "rule": rule, "inner_loop": inner_loop})
