"""Logistic regression on the features of the support set, solved anew for each, after LR-D2.

Bertinetto, Henriques, Torr & Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR
2019, section 3.3. The head minimizes a convex loss, and the meta-gradient flows through the search
for the minimum. The paper has two classes; here there are N, under one softmax:

    X = rows [f(x_i), 1] of the B support images, f of length 1      Y = their classes, one-hot
    W = argmin  sum_i cross_entropy(softmax(x_i W), y_i) + l/2 |W|^2
    logits = [f(x), 1] W

W = X' A, as the gradient says. The second derivatives of the loss are at most X X' / 2 (Boehning,
"Multinomial logistic regression algorithm", 1992), whatever the probabilities are. So one
decomposition serves all steps, and without momentum each step lowers the loss:

    A <- A - (X X' / 2 + l I)^-1 (P - Y + l A)          P = softmax(X X' A)

Nesterov's momentum is added, which needs fewer steps; a single step may then raise the loss. After
60 steps the weights are near W, less near with a small penalty and many classes. The logarithm of l
is learned, so l stays positive.

    paper        code            shape
    f            embedding       [B, h, w, c] -> [B, D]
    lambda       penalty         []
    W            weights         [D + 1, N]
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import TrainedOptions
from tf_metalstm.methods.embedding_method import EmbeddingMethod
from tf_metalstm.methods.ridge_regression import Regression
from tf_metalstm.options import option
from tf_metalstm.parts import Part
from tf_metalstm.ridge import with_ones


@dataclass(frozen=True)
class LogisticRegressionOptions(TrainedOptions):
    """Options of logistic regression."""

    logistic_penalty: float = option(
        0.01,
        "Initial value of the learned penalty on the weights of the head.",
        above=0,
        settled=True,
    )
    logistic_steps: int = option(
        60, "Number of steps of the search for the weights of the head.", at_least=1
    )


def logistic_weights(
    inputs: Tensor, targets: Tensor, penalty: Tensor | float, num_steps: int
) -> Tensor:
    """Returns W [D, N], which minimizes the sum of the cross entropies plus the penalty.

    Args:
        inputs: X [B, D]; append a column of ones for an intercept.
        targets: Y [B, N], one-hot, of the same type as the inputs.
        penalty: l, positive, a scalar.
        num_steps: number of steps of the search.
    """
    penalty = tf.cast(penalty, inputs.dtype)
    products = tf.matmul(inputs, inputs, transpose_b=True)
    bound = tf.linalg.set_diag(products / 2.0, tf.linalg.diag_part(products) / 2.0 + penalty)
    factor = tf.linalg.cholesky(bound)

    def step(number: Tensor, dual: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        momentum = tf.cast(number / (number + 3), inputs.dtype)
        ahead = dual + momentum * (dual - before)
        wrong = tf.nn.softmax(tf.matmul(products, ahead)) - targets
        after = ahead - tf.linalg.cholesky_solve(factor, wrong + penalty * ahead)
        return number + 1, after, dual

    start = tf.zeros_like(targets)
    _, dual, _ = tf.while_loop(
        lambda number, *_: number < num_steps,
        step,
        (tf.constant(0), start, start),
        maximum_iterations=num_steps,
    )
    return tf.matmul(inputs, dual, transpose_a=True)


class LogisticHead(EmbeddingMethod, abc.ABC):
    """The base class of methods whose last layer is logistic regression.

    Args:
        embedding: images -> features.
        training_way: see `EmbeddingMethod`.
        logistic_penalty: initial value of l; positive.
        logistic_steps: number of steps of the search.
        **kwargs: further arguments of `EmbeddingMethod`.
    """

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        logistic_penalty: float = 0.01,
        logistic_steps: int = 60,
        **kwargs: Any,
    ) -> None:
        super().__init__(embedding, training_way, **kwargs)
        LogisticRegressionOptions(None, logistic_penalty, logistic_steps)  # checks them
        self.logistic_penalty, self.logistic_steps = logistic_penalty, logistic_steps
        begin = keras.initializers.Constant(math.log(logistic_penalty))
        self.log_penalty = self.add_weight(shape=(), initializer=begin, name="log_penalty")
        self.built = True

    def solution(
        self,
        inputs: Tensor,
        labels: Tensor,
        num_way: Tensor | int,
        penalty: Tensor | float | None = None,
    ) -> Tensor:
        """Returns `logistic_weights`, [D + 1, N].

        Args:
            inputs: features of length 1, with a column of ones, [B, D + 1].
            labels: labels in [0, N), [B].
            num_way: N.
            penalty: l; None for the learned one.
        """
        targets = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=inputs.dtype)
        if penalty is None:
            penalty = tf.exp(tf.convert_to_tensor(self.log_penalty))
        return logistic_weights(inputs, targets, penalty, self.logistic_steps)

    def facts(self) -> dict[str, Any]:
        """Returns the learned penalty."""
        penalty = float(keras.ops.convert_to_numpy(keras.ops.exp(self.log_penalty)))
        return {"logistic_penalty": round(penalty, 6)}

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        own = {"logistic_penalty": self.logistic_penalty, "logistic_steps": self.logistic_steps}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("tf_metalstm")
class LogisticRegression(LogisticHead):
    """Adapts by searching for the head with the lowest loss on the support set.

    Args:
        embedding: images -> features.
        training_way: see `EmbeddingMethod`.
        logistic_penalty: see `LogisticHead`.
        logistic_steps: see `LogisticHead`.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "logistic_regression",
        "Logistic regression",
        "Bertinetto et al., ICLR 2019",
        LogisticRegressionOptions,
        needs=("learner",),
    )
    has_unit_features = True

    def __init__(
        self,
        embedding: keras.Model,
        training_way: int | None = None,
        logistic_penalty: float = 0.01,
        logistic_steps: int = 60,
        name: str = "logistic_regression",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            embedding, training_way, logistic_penalty, logistic_steps, name=name, **kwargs
        )

    def summarize(self, features: Tensor, labels: Tensor, num_way: Tensor | int) -> Regression:
        """Searches for the weights of the head."""
        return Regression(self.solution(with_ones(features), labels, num_way))

    def compare(self, summary: Regression, features: Tensor, training: bool = False) -> Tensor:
        """Returns the logits of the head, [B, N]."""
        return tf.matmul(with_ones(features), summary.weights)
