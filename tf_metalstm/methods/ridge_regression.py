"""Ridge regression on the features of the support set: R2-D2.

Bertinetto, Henriques, Torr & Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR
2019, section 3.2. The head is the solution of a least-squares problem. The meta-gradient flows
through the solution, and no step of gradient descent is needed:

    X      = rows [f(x_i), 1] of the B support images          Y = their classes, one-hot
    W      = argmin 1/B |X W - Y|^2 + l |W|^2                  see `tf_metalstm.ridge`
    logits = a [f(x), 1] W

The logarithms of l and a are learned, so l and a stay positive. The factor 1/B and the column of
ones are those of the authors' code. With 1/B the same l suits any number of images. The column of
ones gives each class a bias. Equation 7 of the paper has another bias, the same for all classes.
The softmax removes it and it would never be trained, so it is left out. Unlike in the paper,
features have length 1, so that the same l suits networks of any size.

    paper        code            shape
    f            embedding       [B, h, w, c] -> [B, D]
    lambda       penalty         []
    alpha        scale           []
    W            weights         [D + 1, N]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import TrainedOptions
from tf_metalstm.methods.embedding_method import EmbeddingMethod
from tf_metalstm.options import option
from tf_metalstm.parts import Part
from tf_metalstm.ridge import regression, with_ones


@dataclass(frozen=True)
class RidgeRegressionOptions(TrainedOptions):
    """Options of ridge regression."""

    ridge_penalty: float = option(
        0.1,
        "Initial value of the learned penalty on the weights of the head.",
        above=0,
        settled=True,
    )
    ridge_scale: float = option(
        10.0, "Initial value of the learned factor on the logits.", above=0, settled=True
    )


class Regression(NamedTuple):
    """What `adapt` returns for a support set.

    weights: weights of the features and of the column of ones, [D + 1, N]; zeros for a class
        without images.
    """

    weights: Tensor


@keras.saving.register_keras_serializable("tf_metalstm")
class RidgeRegression(EmbeddingMethod):
    """Adapts by solving a system of linear equations.

    Args:
        embedding: images -> features.
        training_way: see `EmbeddingMethod`.
        ridge_penalty: initial value of l; positive.
        ridge_scale: initial value of a; positive.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "ridge_regression",
        "Ridge regression in closed form",
        "Bertinetto et al., ICLR 2019",
        RidgeRegressionOptions,
        needs=("learner",),
    )
    has_unit_features = True

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        ridge_penalty: float = 0.1,
        ridge_scale: float = 10.0,
        name: str = "ridge_regression",
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, name=name, **kwargs)
        RidgeRegressionOptions(None, ridge_penalty, ridge_scale)  # checks them
        self.ridge_penalty, self.ridge_scale = ridge_penalty, ridge_scale
        self.log_penalty, self.log_scale = (
            self.add_weight(
                shape=(), initializer=keras.initializers.Constant(math.log(begin)), name=f"log_{of}"
            )
            for of, begin in (("penalty", ridge_penalty), ("scale", ridge_scale))
        )
        self.built = True

    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Regression:
        """Solves for the weights of the head."""
        penalty = tf.exp(tf.convert_to_tensor(self.log_penalty))
        return Regression(regression(features, labels, num_way, penalty))

    def compare(self, summary: Regression, features: Tensor, training: bool = False) -> Tensor:
        """Returns the logits of the head, [B, N]."""
        scale = tf.exp(tf.convert_to_tensor(self.log_scale))
        return scale * tf.matmul(with_ones(features), summary.weights)

    def facts(self) -> dict[str, Any]:
        """Returns the learned penalty and scale."""
        learned = {"ridge_penalty": self.log_penalty, "ridge_scale": self.log_scale}
        return {
            name: round(float(keras.ops.convert_to_numpy(keras.ops.exp(log))), 6)
            for name, log in learned.items()
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        own = {"ridge_penalty": self.ridge_penalty, "ridge_scale": self.ridge_scale}
        return {**super().get_config(), **own}
