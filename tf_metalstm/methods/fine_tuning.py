"""Fine-tuning from logistic regression: the layers before the last are updated, the last is solved.

Kumar, Raghunathan, Jones, Ma & Liang, "Fine-tuning can distort pretrained features and underperform
out-of-distribution", ICLR 2022: first the last layer is fitted to the features, then all layers are
tuned (LP-FT). With a new random layer the first updates would spoil the features. Here the last
layer is logistic regression on features f of length 1. It stays during the updates and is solved
again after them:

    W_0      = argmin  sum_i cross_entropy(softmax([f(x_i; theta_0), 1] W), y_i) + l_0/2 |W|^2
    L(theta) = 1/B     sum_i cross_entropy(softmax([f(x_i; theta), 1] W_0), y_i)
    theta_T  = theta_0 after T updates of the rule by the gradient of L
    W        = argmin  as for W_0, at theta_T and with l in place of l_0
    logits   = [f(x; theta_T), 1] W

With a larger penalty l_0 the logits of W_0 are small, so L does not come near zero, and a rule that
rescales the gradient, such as Adam, goes on moving the features. With a batch size, L is the mean
over a part of the support set. A pass goes through all parts; each pass divides the images anew.

theta are the trained layers of the network (`--trained_layers`). The layers before them answer each
image once, and not once an update. Batch norm keeps its running statistics. Without updates this
is logistic regression. The first weights of the trained layers, the rule and the penalty can be
meta-trained.

    in words                  code       shape
    layers that stay          front      [B, h, w, c] -> [B, ...]
    layers that are updated   back       [B, ...] -> [B, D], a function of theta [P]
    W                         weights    [D + 1, N]
    l_0                       tuning_penalty
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.adaptation import (
    BatchOptions,
    InnerLoop,
    InnerLoopOptions,
    unroll,
    unroll_in_loop,
)
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.front_and_back import FrontAndBack
from tf_metalstm.learners.layers import adaptable
from tf_metalstm.learners.second_order import check_second_order
from tf_metalstm.methods.base import LOSSES, Builder
from tf_metalstm.methods.logistic_regression import LogisticHead, LogisticRegressionOptions
from tf_metalstm.methods.metric import in_chunks
from tf_metalstm.objectives import cross_entropy
from tf_metalstm.options import OptionError, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.ridge import with_ones
from tf_metalstm.rules.base import Rule

_ORDER = 0  # of the images in a pass: the first of the two numbers of its seed


@dataclass(frozen=True)
class FineTuningOptions(LogisticRegressionOptions, InnerLoopOptions, BatchOptions):
    """Options of fine-tuning, and those of logistic regression and of the inner loop."""

    tuning_penalty: float | None = option(
        None,
        "Penalty on the weights of the last layer that stays during the updates. Default: the "
        "penalty of the head after them.",
        above=0,
    )


class Tuned(NamedTuple):
    """What `adapt` returns for a support set.

    theta: the updated layers, theta_T, [P].
    weights: the last layer, W, [D + 1, N].
    """

    theta: Tensor
    weights: Tensor


@dataclass(frozen=True)
class TuningProblem:
    """The loss L(theta) of a support set, with a last layer that stays.

    inputs: theta [P], features [B, ...] -> the inputs of the last layer, [B, D + 1].
    features: outputs of the layers that stay, for the support images, [B, ...].
    labels: labels of the support images, [B].
    weights: W_0, [D + 1, N].
    batch_size: largest number of images in an update; None for all.
    """

    inputs: Callable[[Tensor, Tensor], Tensor]
    features: Tensor
    labels: Tensor
    weights: Tensor
    batch_size: int | None = None

    def initial_carry(self) -> tuple[()]:
        """Returns (): the loss only depends on theta."""
        return ()

    def loss(self, theta: Tensor, carry: Any, step: Any) -> tuple[Tensor, Any]:
        """Returns the loss at theta [P] of the images of this step, and the carry ()."""
        features, labels = self.features, self.labels
        if self.batch_size is not None:
            rows = rows_of_update(step, labels, self.batch_size)
            features, labels = tf.gather(features, rows), tf.gather(labels, rows)
        return cross_entropy(labels, tf.matmul(self.inputs(theta, features), self.weights)), carry

    def gradient_scale(self) -> float:
        """Returns 1."""
        return 1.0


def rows_of_update(step: Any, labels: Tensor, batch_size: int) -> Tensor:
    """Returns the numbers of the support images of an update, [b].

    A pass has B / batch_size updates, rounded up, whose numbers of images differ by at most one. An
    image is in one update of each pass. The order is a function of the number of the pass and of B.

    Args:
        step: number of the update, from 0, an int or a scalar.
        labels: labels of the support images, [B].
        batch_size: largest number of images in an update.
    """
    number = tf.shape(labels)[0] if labels.shape[0] is None else labels.shape[0]
    parts = -(-number // batch_size)
    seed = tf.stack([_ORDER, step // parts])
    order = tf.random.experimental.stateless_shuffle(tf.range(number), seed)
    return tf.ensure_shape(order[step % parts :: parts], [None])


@keras.saving.register_keras_serializable("tf_metalstm")
class FineTuning(LogisticHead):
    """Adapts by T updates of the trained layers, before and after which the last one is solved.

    Its features are the outputs of the layers that stay.

    Args:
        embedding: images -> the inputs of the last layer.
        rule: the rule that updates the trained layers; it is built here.
        inner_loop: options of the inner loop, such as the number of updates.
        training_way: see `EmbeddingMethod`.
        num_evaluation_steps: updates outside meta-training; None for the same number.
        support_batch_size: largest number of support images in an update; None for all.
        tuning_penalty: l_0, positive; None for the penalty of the solution after the updates.
        logistic_penalty: see `LogisticHead`.
        logistic_steps: see `LogisticHead`.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "fine_tuning",
        "Fine-tuning from logistic regression",
        "Kumar et al., ICLR 2022",
        FineTuningOptions,
        needs=("learner", "rule"),
    )
    starts_from = ("nearest_neighbor", "prototypical_networks", "logistic_regression")
    has_unit_features = False  # the features before the updated layers
    one_pass = False
    keeps_statistics = False

    def __init__(
        self,
        embedding: keras.Model,
        rule: Rule,
        inner_loop: InnerLoop,
        training_way: int | None = None,
        *,
        num_evaluation_steps: int | None = None,
        support_batch_size: int | None = None,
        tuning_penalty: float | None = None,
        logistic_penalty: float = 0.01,
        logistic_steps: int = 60,
        name: str = "fine_tuning",
        **kwargs: Any,
    ) -> None:
        if not embedding.trainable_variables:
            raise OptionError(
                "learner",
                "has no trained layer before the last one, and method=fine_tuning updates such "
                "layers: give trained_layers=4 or the like, or choose another method.",
            )
        embedding = adaptable(embedding, inner_loop.second_order)
        super().__init__(
            embedding, training_way, logistic_penalty, logistic_steps, name=name, **kwargs
        )
        self.halves = FrontAndBack(embedding)
        if inner_loop.second_order:
            check_second_order(self.halves.back.model)
        FineTuningOptions(support_batch_size=support_batch_size, tuning_penalty=tuning_penalty)
        self.support_batch_size, self.tuning_penalty = support_batch_size, tuning_penalty
        self.inner_loop = inner_loop
        self.evaluation_loop = inner_loop.with_steps(num_evaluation_steps)
        if not rule.built:
            rule.build(self.blocks)
        self.rule = rule

    @classmethod
    def from_options(cls, options: FineTuningOptions, builder: Builder) -> FineTuning:
        """Returns the method with a fresh embedding and rule."""
        return cls(
            embedding_of(builder.network(1, cls.statistics_momentum)),
            builder.rule(),
            options.inner_loop(),
            builder.tasks.training_way,
            num_evaluation_steps=options.num_evaluation_steps,
            support_batch_size=options.support_batch_size,
            tuning_penalty=options.tuning_penalty,
            logistic_penalty=options.logistic_penalty,
            logistic_steps=options.logistic_steps,
        )

    @property
    def blocks(self) -> Blocks:
        """The tensors of theta."""
        return self.halves.back.parameter_blocks

    @property
    def num_updates(self) -> int:
        """T outside meta-training."""
        return self.evaluation_loop.num_steps

    @property
    def features_are_frozen(self) -> bool:
        """Whether layers stay; then each image goes through them once, also in training."""
        return bool(self.halves.front.variables)

    def features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the outputs of the layers that stay, in the precision of the method."""
        del training
        return tf.cast(self.halves.front(images, training=False), self.compute_dtype)

    def support_features(self, images: Tensor, training: bool = False) -> Tensor:
        """Returns the features of a support set, in parts."""
        del training
        shape = self.halves.front.output_shape[1:]
        return in_chunks(self.features, images, shape, self.compute_dtype)

    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Tuned:
        """Returns the network after the updates outside training."""
        return self._tuned(features, labels, num_way, self.num_updates)[0]

    def summarize_after(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int, num_steps: Tensor
    ) -> Tuned:
        """Returns the network after T updates."""
        return self._tuned(features, labels, num_way, num_steps)[0]

    def summarize_in_training(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int
    ) -> Tuned:
        """Returns the network after the updates in training."""
        return self._tuned(features, labels, num_way, None)[0]

    def compare(self, summary: Tuned, features: Tensor, training: bool = False) -> Tensor:
        """Returns the logits of the last layer, [B, N]."""
        return tf.matmul(self._inputs(summary.theta, features), summary.weights)

    def adapt_and_trace(
        self, support: Support, num_steps: Tensor | None = None
    ) -> tuple[Tuned, dict[str, Tensor]]:
        """Returns also the support losses [T] and the trace of the rule, [T, ...]."""
        features = self.support_features(support.inputs)
        num_way = self._num_way(support.labels, training=False)
        number = self.num_updates if num_steps is None else num_steps
        return self._tuned(features, support.labels, num_way, number)

    def _tuned(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int, num_steps: Any
    ) -> tuple[Tuned, dict[str, Tensor]]:
        """Returns the tuned network and the trace; `num_steps` is None in training."""
        theta_0 = self.halves.parameters()
        inputs = self._inputs(theta_0, features)
        weights = self.solution(inputs, labels, num_way, self.tuning_penalty)
        problem = TuningProblem(self._inputs, features, labels, weights, self.support_batch_size)
        if num_steps is None:
            unrolled = unroll(self.rule, problem, theta_0, self.inner_loop)
        else:
            number = tf.convert_to_tensor(num_steps)
            unrolled = unroll_in_loop(self.rule, problem, theta_0, self.evaluation_loop, number)
        theta = unrolled.theta
        trace = {LOSSES: unrolled.trajectory.losses, **unrolled.trajectory.traces}
        return Tuned(theta, self.solution(self._inputs(theta, features), labels, num_way)), trace

    def _inputs(self, theta: Tensor, features: Tensor) -> Tensor:
        """Returns the inputs of the last layer, [f(x; theta), 1], [B, D + 1]."""
        outputs = tf.cast(self.halves.answer(theta, features), self.compute_dtype)
        return with_ones(tf.math.l2_normalize(outputs, axis=-1))

    def facts(self) -> dict[str, Any]:
        """Returns the rule, the number of updated parameters and the learned penalty."""
        return {
            "rule": type(self.rule).__name__,
            **self.halves.back.facts(),
            **super().facts(),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        return {
            **super().get_config(),
            "rule": keras.saving.serialize_keras_object(self.rule),
            "inner_loop": dataclasses.asdict(self.inner_loop),
            "num_evaluation_steps": self.evaluation_loop.num_steps,
            "support_batch_size": self.support_batch_size,
            "tuning_penalty": self.tuning_penalty,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> FineTuning:
        """Returns a method from what `get_config` returned."""
        rule = keras.saving.deserialize_keras_object(config["rule"], custom_objects)
        inner_loop = InnerLoop(**config["inner_loop"])
        return super().from_config({**config, "rule": rule, "inner_loop": inner_loop})
