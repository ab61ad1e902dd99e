"""Ridge regression in closed form.

    W = argmin |X W - Y|^2 + l |W|^2
      = (X' X + l I)^-1 X' Y           D equations
      = X' (X X' + l I)^-1 Y           B equations, by the Woodbury identity

Both give the same W. The smaller system of equations is solved. It is symmetric and, with l > 0,
positive definite. So Cholesky's decomposition is used, through which gradients flow.

    in words           code       shape
    X                  inputs     [B, D]
    Y                  targets    [B, N]
    l                  penalty    []
    W                             [D, N]
"""

from __future__ import annotations

import tensorflow as tf

from tf_metalstm.episode import Tensor


def ridge_weights(inputs: Tensor, targets: Tensor, penalty: Tensor | float) -> Tensor:
    """Returns the weights [D, N] of the regression of targets [B, N] on inputs [B, D].

    Args:
        inputs: X; append a column of ones for an intercept.
        targets: Y, of the same type as the inputs.
        penalty: l, positive, a scalar.
    """
    inputs, targets = tf.convert_to_tensor(inputs), tf.convert_to_tensor(targets)
    penalty = tf.cast(penalty, inputs.dtype)
    size, num_inputs = inputs.shape
    if size is not None and num_inputs is not None:  # both may be unknown in a graph
        return (_by_images if size <= num_inputs else _by_inputs)(inputs, targets, penalty)
    weights = tf.cond(
        tf.shape(inputs)[0] <= tf.shape(inputs)[1],
        lambda: _by_images(inputs, targets, penalty),
        lambda: _by_inputs(inputs, targets, penalty),
    )
    return tf.ensure_shape(weights, [num_inputs, targets.shape[1]])


def with_ones(features: Tensor) -> Tensor:
    """Returns features [B, D] with a column of ones, [B, D + 1]."""
    return tf.concat([features, tf.ones_like(features[:, :1])], axis=1)


def regression(
    features: Tensor, labels: Tensor, num_way: Tensor | int, penalty: Tensor | float
) -> Tensor:
    """Returns the weights of the regression of classes on features, [D + 1, N].

    Args:
        features: features of the images, [B, D].
        labels: labels in [0, N), [B].
        num_way: N.
        penalty: l, positive.
    """
    targets = tf.one_hot(tf.cast(labels, tf.int32), num_way, dtype=features.dtype)
    number = tf.cast(tf.shape(features)[0], features.dtype)
    return ridge_weights(with_ones(features), targets, number * tf.cast(penalty, features.dtype))


def _by_inputs(inputs: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    covariance = tf.matmul(inputs, inputs, transpose_a=True)
    return _solve(covariance, penalty, tf.matmul(inputs, targets, transpose_a=True))


def _by_images(inputs: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    products = tf.matmul(inputs, inputs, transpose_b=True)
    return tf.matmul(inputs, _solve(products, penalty, targets), transpose_a=True)


def _solve(matrix: Tensor, penalty: Tensor, right: Tensor) -> Tensor:
    """Returns (matrix + penalty I)^-1 right."""
    ridge = tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + penalty)
    return tf.linalg.cholesky_solve(tf.linalg.cholesky(ridge), right)
