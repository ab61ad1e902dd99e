"""A last layer that classifies by prototypes before the first update: ProtoMAML.

Triantafillou et al., "Meta-Dataset", ICLR 2020, section 3.1, after Snell, Swersky & Zemel, NIPS
2017, section 2.4. c_k is the mean of the features of class k at c_0. Apart from a term that is the
same for all classes, -s |f(x) - c_k|^2 is the linear layer

    w_k = 2 s c_k,  b_k = -s |c_k|^2

With `unit_features` f(x) has length 1, and the layer computes the scaled cosine instead:

    w_k = s c_k / |c_k|,  b_k = 0

The logarithm of s is learned. The meta-gradient flows through the means into c_0.

    paper   code                 shape
    c_k     means                [N, D]
    s       exp(log_scale)       []
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_metalstm.class_means import class_means
from tf_metalstm.episode import Support, Tensor
from tf_metalstm.learners.any_way import AnyWayLearner
from tf_metalstm.parts import Part
from tf_metalstm.starts.scaled_head import ScaledHead, ScaledHeadOptions


def prototype_rows(means: Tensor, scale: Tensor, unit: bool) -> Tensor:
    """Returns the rows (w_k, b_k), [N, D + 1].

    Args:
        means: c_k, [N, D].
        scale: s, a scalar.
        unit: whether features have length 1.
    """
    if unit:
        directions = tf.math.l2_normalize(means, axis=-1)
        return scale * tf.concat([directions, tf.zeros_like(means[:, :1])], axis=1)
    squares = tf.reduce_sum(tf.square(means), axis=-1, keepdims=True)
    return scale * tf.concat([2.0 * means, -squares], axis=1)


@keras.saving.register_keras_serializable("tf_metalstm")
class PrototypeStart(ScaledHead):
    """The row of each class starts at its prototype. For the arguments see `ScaledHead`."""

    part = Part(
        "prototypes",
        "Prototypes of the classes",
        "Triantafillou et al., ICLR 2020",
        ScaledHeadOptions,
    )

    def rows(self, learner: AnyWayLearner, support: Support, num_way: Tensor | int) -> Tensor:
        """Returns the rows of the prototypes, [N, D + 1]."""
        means = class_means(self.support_features(learner, support), support.labels, num_way)
        return prototype_rows(means, self.scale(), self.unit_features)
