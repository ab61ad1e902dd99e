"""A network whose linear layer has a row for each class of an episode.

    logit of class k = w_k . f(x) + b_k

theta [P] has first the parameters of the features f, then w_k [D] and b_k [1] of class 0, of class
1, and so on: P = (P of f) + N (D + 1). So the length of theta determines N, and one trained model
works with any number of classes.

With `unit_features` f is scaled to length 1 before the linear layer.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.functional import FunctionalLearner, flatten, unflatten
from tf_metalstm.learners.stateless import stateless_call


class AnyWayLearner(FunctionalLearner):
    """A Keras model as a function of theta, with a row of its last layer for each class.

    Its parameters and blocks are those of a model of one class.

    Args:
        model: a built Functional model, images -> one logit, whose last layer is a linear `Dense`.
        second_order: see `FunctionalLearner`.
        unit_features: whether features are scaled to length 1 before the linear layer.

    Raises:
        ValueError: the model has another last layer.
    """

    def __init__(
        self, model: keras.Model, second_order: bool = False, unit_features: bool = False
    ) -> None:
        super().__init__(model, second_order)
        last = self.model.layers[-1]
        if not _is_row(last) or self.num_before_last_layer() == self.num_parameters:
            raise ValueError(
                f"The last layer of {model.name!r} is not a linear Dense layer with a bias and one "
                "output, which each class needs: use such a layer, or start=c_0."
            )
        self.unit_features = unit_features
        self.body = embedding_of(self.model)
        self.num_body = self.num_before_last_layer()
        body, row = self.parameter_blocks[:-2], self.parameter_blocks[-2:]
        self.body_blocks = body
        self.parameter_blocks = body + tuple(block._replace(per_class=True) for block in row)

    @property
    def num_features(self) -> int:
        """D, the number of inputs of the linear layer."""
        return self.num_parameters - self.num_body - 1

    def facts(self) -> dict[str, int]:
        """Returns the entries of a manifest about the length of theta."""
        return {
            "num_parameters": self.num_body,
            "num_parameters_per_class": self.num_features + 1,
        }

    def with_head(self, body: Tensor, rows: Tensor) -> Tensor:
        """Returns theta [P] from the parameters of f and the rows w_k, b_k, [N, D + 1]."""
        return tf.concat([body, tf.reshape(rows, [-1])], axis=0)

    def features(
        self, body: Tensor, statistics: Tensor, images: Tensor, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns the features f(x), [B, D], and the new statistics.

        Args:
            body: the parameters of f.
            statistics: running statistics, [S].
            images: inputs, [B, h, w, c].
            training: see `apply`.
        """
        training = training and self.trained_statistics is None
        return self._features(body, statistics, images, training)

    def _features(
        self, body: Tensor, statistics: Tensor, images: Tensor, training: bool
    ) -> tuple[Tensor, Tensor]:
        features, new = stateless_call(
            self.body,
            unflatten(body, self.body_blocks),
            unflatten(statistics, self.statistics_blocks),
            images,
            training,
        )
        features = tf.cast(features, self.dtype)  # the network may use bfloat16
        if self.unit_features:
            features = tf.math.l2_normalize(features, axis=-1, epsilon=_SMALLEST_SQUARE)
        return features, flatten(new) if training and self.statistics_blocks else statistics

    def _apply(
        self, theta: Tensor, statistics: Tensor, images: Tensor, training: bool
    ) -> tuple[Tensor, Tensor]:
        body = theta[: self.num_body]
        features, statistics = self._features(body, statistics, images, training)
        rows = tf.reshape(theta[self.num_body :], [-1, self.num_features + 1])
        logits = tf.matmul(features, rows[:, :-1], transpose_b=True) + rows[:, -1]
        return logits, statistics


# If all features are zero, as those of a blank image after ReLU, they stay zero, with a gradient.
_SMALLEST_SQUARE = 1e-12


def _is_row(layer: keras.layers.Layer) -> bool:
    return (
        type(layer) is keras.layers.Dense
        and layer.use_bias
        and layer.units == 1
        and layer.activation is keras.activations.linear
    )
