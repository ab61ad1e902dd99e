"""OP-LSTM: an LSTM turns labels and logits into an outer-product update of the last layer.

Huisman, Moerland, Plaat & van Rijn, "Are LSTMs good few-shot learners?", Machine Learning 2023.
There is no gradient in the inner loop. For update t = 1 ... T, on the features X of the support
set with a column of ones, and for every pair of an image i and a class k:

    P          = s X W'                                    logits
    o_ik, h_ik = LSTM([y_ik, p_ik], h_ik)                  the same weights for every pair
    W         <- W + gamma O'X / rms_k |(O'X)_k|           as long for any N and B

y_ik is 1 if image i belongs to class k, else 0. The LSTM has several layers, the last of one unit,
and keeps its state over the updates. gamma is learned. An update costs two matrix products. As
every pair is treated alike, permuted classes permute the answers, and N may be any number.

Three things differ from the paper. Its first W is learned for N classes in a fixed order; here it
is that of `tf_metalstm.methods.last_layer`, with features of length 1. It divides by |O'X| and not
by the root mean square of the lengths of its rows, so that its step of a row falls with N; at one
N the two differ by a factor in gamma. And there is a bias for each class.

    paper     code        shape
    X         inputs      [B, D + 1]
    y         targets     [B, N]
    H         rows        [N, D + 1]
    o         pulls       [B, N]
    gamma     step        []
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.adaptation import UpdateOptions
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
from tf_metalstm.options import option
from tf_metalstm.parts import Part
from tf_metalstm.ridge import with_ones

_NUM_INPUTS = 2  # y and p


@dataclass(frozen=True)
class OuterProductLSTMOptions(LastLayerOptions, UpdateOptions):
    """Options of OP-LSTM."""

    pair_units: tuple[int, ...] = option(
        (40, 20),
        "Units of the LSTM layers that see the label and the logit of a pair of image and class; "
        "a layer of one unit follows.",
        at_least=1,
        settled=True,
    )
    outer_step: float = option(
        0.1,
        "Initial value of the learned step length: the root mean square of the change of a row of "
        "the last layer.",
        above=0,
        settled=True,
    )


def outer_product_update(
    rows: Tensor, inputs: Tensor, pulls: Tensor, present: Tensor, step: Tensor
) -> Tensor:
    """Returns W + gamma O'X / rms_k |(O'X)_k|, [N, D + 1].

    Args:
        rows: W, [N, D + 1].
        inputs: X, features of the support images with a column of ones, [B, D + 1].
        pulls: O, [B, N].
        present: 1 for a class with images, else 0, [N]. Other classes do not move and do not count.
        step: gamma, a scalar.
    """
    change = tf.matmul(pulls * present, inputs, transpose_a=True)
    length = tf.sqrt(tf.reduce_sum(present))
    return rows + step * length * tf.math.l2_normalize(change, axis=None)


@keras.saving.register_keras_serializable("tf_metalstm")
class OuterProductLSTM(LastLayerMethod):
    """Adapts by T outer-product updates of the last layer, which an LSTM decides.

    Args:
        embedding: images -> features.
        training_way: see `EmbeddingMethod`.
        num_steps: T in meta-training.
        num_evaluation_steps: T outside meta-training; None for the same number.
        pair_units: units of the LSTM layers before the last.
        outer_step: initial value of gamma; positive.
        name: do not change it: checkpoints find the weights by it.
        **kwargs: further arguments of `LastLayerMethod`.
    """

    part = Part(
        "outer_product_lstm",
        "Outer-product LSTM (OP-LSTM)",
        "Huisman et al., Machine Learning 2023",
        OuterProductLSTMOptions,
        needs=("learner",),
    )

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        *,
        num_steps: int = 3,
        num_evaluation_steps: int | None = None,
        pair_units: tuple[int, ...] = (40, 20),
        outer_step: float = 0.1,
        name: str = "outer_product_lstm",
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, name=name, **kwargs)
        OuterProductLSTMOptions(  # checks them
            num_steps=num_steps,
            num_evaluation_steps=num_evaluation_steps,
            pair_units=tuple(pair_units),
            outer_step=outer_step,
        )
        self.num_steps, self.num_evaluation_steps = num_steps, num_evaluation_steps
        self.pair_units, self.outer_step = tuple(pair_units), outer_step
        self.cells = [
            keras.layers.LSTMCell(units, dtype=self.dtype_policy, name=f"pair_{number}")
            for number, units in enumerate((*self.pair_units, 1), start=1)
        ]
        for cell, width in zip(self.cells, (_NUM_INPUTS, *self.pair_units), strict=True):
            cell.build((None, width))
        begin = keras.initializers.Constant(outer_step)
        self.step = self.add_weight(shape=(), initializer=begin, name="step")
        self.built = True

    @classmethod
    def from_options(cls, options: OuterProductLSTMOptions, builder: Builder) -> OuterProductLSTM:
        """Returns the method with a fresh embedding and LSTM."""
        return cls(
            embedding_of(builder.network(1, cls.statistics_momentum)),
            builder.tasks.training_way,
            num_steps=options.num_steps,
            num_evaluation_steps=options.num_evaluation_steps,
            pair_units=options.pair_units,
            outer_step=options.outer_step,
            **options.of_last_layer(),
        )

    @property
    def num_updates(self) -> int:
        """T outside meta-training."""
        chosen = self.num_evaluation_steps
        return self.num_steps if chosen is None else chosen

    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> LastLayer:
        """Returns the last layer after the updates outside training."""
        return self._updated(features, labels, num_way, self.num_updates)[0]

    def summarize_after(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int, num_steps: Tensor
    ) -> LastLayer:
        """Returns the last layer after T updates."""
        return self._updated(features, labels, num_way, num_steps)[0]

    def summarize_in_training(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int
    ) -> LastLayer:
        """Returns the last layer after the updates in training."""
        return self._updated(features, labels, num_way, self.num_steps)[0]

    def adapt_and_trace(
        self, support: Support, num_steps: Tensor | None = None
    ) -> tuple[LastLayer, dict[str, Tensor]]:
        """Returns also the support losses before each update, [T]."""
        features = self.support_features(support.inputs)
        num_way = self._num_way(support.labels, training=False)
        number = self.num_updates if num_steps is None else num_steps
        layer, losses = self._updated(features, support.labels, num_way, number)
        return layer, {LOSSES: losses}

    def _updated(
        self, features: Tensor, labels: Tensor, num_way: Tensor | int, number: Tensor | int
    ) -> tuple[LastLayer, Tensor]:
        """Returns the last layer after T updates, and the losses before each, [T]."""
        rows = self.first_rows(features, labels, num_way)
        update = self._update_of(with_ones(features), labels, num_way)
        pairs = tf.size(labels) * num_way
        states = [cell.get_initial_state(pairs) for cell in self.cells]
        losses = tf.TensorArray(rows.dtype, size=number, element_shape=())
        if isinstance(number, int):  # unrolled, as it is faster and has gradients of any order
            for t in range(number):
                loss, rows, states = update(rows, states)
                losses = losses.write(t, loss)
            return LastLayer(rows), losses.stack()

        def body(t: Tensor, rows: Tensor, states: Any, losses: Any) -> tuple[Any, ...]:
            loss, rows, states = update(rows, states)
            return t + 1, rows, states, losses.write(t, loss)

        start = (tf.constant(0), rows, states, losses)
        _, rows, _, losses = tf.while_loop(lambda t, *_: t < number, body, start)
        return LastLayer(rows), losses.stack()

    def _update_of(
        self, inputs: Tensor, labels: Tensor, num_way: Tensor | int
    ) -> Callable[[Tensor, Any], tuple[Tensor, Tensor, Any]]:
        """Returns the update on a support set: rows, states -> loss before it, rows, states."""
        targets = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=inputs.dtype)
        present = tf.reduce_max(targets, axis=0)

        def update(rows: Tensor, states: Any) -> tuple[Tensor, Tensor, Any]:
            logits = last_layer_logits(inputs, rows, self.scale())
            seen = tf.reshape(tf.stack([targets, logits], axis=-1), [-1, _NUM_INPUTS])
            after = []
            for cell, state in zip(self.cells, states, strict=True):
                seen, state = cell(seen, state)
                after.append(state)
            pulls = tf.reshape(seen, tf.shape(targets))
            step = tf.convert_to_tensor(self.step)
            moved = outer_product_update(rows, inputs, pulls, present, step)
            return cross_entropy(labels, logits), moved, after

        return update

    def facts(self) -> dict[str, Any]:
        """Returns the learned values of the step length, of s and of the penalty."""
        return {"outer_step": round(float(self.step), 6), **super().facts()}

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        return {
            **super().get_config(),
            "num_steps": self.num_steps,
            "num_evaluation_steps": self.num_evaluation_steps,
            "pair_units": self.pair_units,
            "outer_step": self.outer_step,
        }
