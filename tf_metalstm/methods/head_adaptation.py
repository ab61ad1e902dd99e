"""A rule updates only the last layer; the features do not change in an episode.

Raghu, Raghu, Bengio & Vinyals, "Rapid learning or feature reuse? Towards understanding the
effectiveness of MAML", ICLR 2020, section 4: almost no inner loop (ANIL). The last layer and its
start are those of `tf_metalstm.methods.last_layer`:

    logits = s (w_k . f(x) + b_k)            of class k
    theta  = w_1, b_1, ..., w_N, b_N         moved by T updates of the rule, on the support set

The learned s is a factor on the logits and not a part of w, so an update with a given learning rate
changes the logits by s^2 times as much. The input gate of a meta-LSTM needs this, because it cannot
give a learning rate above 1.

    paper     code        shape
    f         embedding   [B, h, w, c] -> [B, D]
    theta                 [N (D + 1)]
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop, InnerLoopOptions, unroll, unroll_in_loop
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.base import LOSSES, Builder
from tf_metalstm.methods.last_layer import (
    LastLayer,
    LastLayerMethod,
    LastLayerOptions,
    last_layer_logits,
)
from tf_metalstm.objectives import cross_entropy
from tf_metalstm.options import OptionError
from tf_metalstm.parameters import Blocks, blocks_of
from tf_metalstm.parts import Part
from tf_metalstm.ridge import with_ones
from tf_metalstm.rules.base import Rule


@dataclass(frozen=True)
class HeadAdaptationOptions(LastLayerOptions, InnerLoopOptions):
    """Options of methods that update only the last layer."""


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
        return cross_entropy(self.labels, last_layer_logits(self.features, rows, self.scale)), carry

    def gradient_scale(self) -> float:
        """Returns 1."""
        return 1.0


@keras.saving.register_keras_serializable("tf_metalstm")
class HeadAdaptation(LastLayerMethod):
    """Adapts by T updates of the last layer by a rule.

    Args:
        embedding: images -> features.
        rule: the rule that updates the last layer; it is built here.
        inner_loop: options of the inner loop, such as the number of updates.
        training_way: see `EmbeddingMethod`.
        num_evaluation_steps: updates outside meta-training; None for the same number.
        name: do not change it: checkpoints find the weights by it.
        **kwargs: further arguments of `LastLayerMethod`.
    """

    part = Part(
        "head_adaptation",
        "Updates of only the last layer (ANIL)",
        "Raghu et al., ICLR 2020",
        HeadAdaptationOptions,
        needs=("learner", "rule"),
    )

    def __init__(
        self,
        embedding: keras.Model,
        rule: Rule,
        inner_loop: InnerLoop,
        training_way: int | None = None,
        *,
        num_evaluation_steps: int | None = None,
        name: str = "head_adaptation",
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, name=name, **kwargs)
        if not rule.takes_rows:
            raise OptionError(
                "rule",
                f"{rule.part.name} needs a fixed number of parameters, and the last layer has a "
                "row for each class: use another rule.",
            )
        self.inner_loop = inner_loop
        self.evaluation_loop = inner_loop.with_steps(num_evaluation_steps)
        if not rule.built:
            rule.build(self.blocks)
        self.rule = rule
        self.built = True

    @classmethod
    def from_options(cls, options: HeadAdaptationOptions, builder: Builder) -> HeadAdaptation:
        """Returns the method with a fresh embedding and rule."""
        return cls(
            embedding_of(builder.network(1, cls.statistics_momentum)),
            builder.rule(),
            options.inner_loop(),
            builder.tasks.training_way,
            num_evaluation_steps=options.num_evaluation_steps,
            **options.of_last_layer(),
        )

    @property
    def blocks(self) -> Blocks:
        """The tensors of a row of the last layer."""
        row = blocks_of([("linear/kernel", (self.num_features, 1)), ("linear/bias", (1,))])
        return tuple(block._replace(per_class=True) for block in row)

    @property
    def num_updates(self) -> int:
        """T outside meta-training."""
        return self.evaluation_loop.num_steps

    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> LastLayer:
        """Returns the last layer after the updates outside training."""
        return self._updated(features, labels, num_way, self.evaluation_loop)[0]

    def summarize_after(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int, num_steps: Tensor
    ) -> LastLayer:
        """Returns the last layer after T updates."""
        return self._updated(features, labels, num_way, self.evaluation_loop, num_steps)[0]

    def summarize_in_training(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int
    ) -> LastLayer:
        """Returns the last layer after the updates in training."""
        return self._updated(features, labels, num_way, self.inner_loop)[0]

    def adapt_and_trace(
        self, support: Support, num_steps: Tensor | None = None
    ) -> tuple[LastLayer, dict[str, Tensor]]:
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
    ) -> tuple[LastLayer, dict[str, Tensor]]:
        problem = HeadProblem(with_ones(features), labels, self.scale())
        theta_0 = tf.reshape(self.first_rows(features, labels, num_way), [-1])
        if num_steps is None:
            unrolled = unroll(self.rule, problem, theta_0, loop)
        else:
            unrolled = unroll_in_loop(self.rule, problem, theta_0, loop, num_steps)
        trace = {LOSSES: unrolled.trajectory.losses, **unrolled.trajectory.traces}
        return LastLayer(tf.reshape(unrolled.theta, [-1, self.num_features + 1])), trace

    def facts(self) -> dict[str, Any]:
        """Returns the rule and the learned values of s and the penalty."""
        return {"rule": type(self.rule).__name__, **super().facts()}

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        return {
            **super().get_config(),
            "rule": keras.saving.serialize_keras_object(self.rule),
            "inner_loop": dataclasses.asdict(self.inner_loop),
            "num_evaluation_steps": self.evaluation_loop.num_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> HeadAdaptation:
        """Returns a method from what `get_config` returned."""
        rule = keras.saving.deserialize_keras_object(config["rule"], custom_objects)
        inner_loop = InnerLoop(**config["inner_loop"])
        return super().from_config({**config, "rule": rule, "inner_loop": inner_loop})
