"""A call of a Keras model with the values of its variables given.

`keras.Model.stateless_call` does this too, but past `__call__`, which tells the layers inside of a
user's block that a call is one of training: a block that is `norm(conv(x))`, with no argument
`training`, would normalize its support images by running statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tf_metalstm.episode import Tensor


def statistics_of(model: keras.Model) -> list[Any]:
    """Returns the variables that are not trained: the running moments of batch normalization.

    Those that are no floating point numbers are not among them: the random seeds of recurrent
    layers that drop nothing.
    """
    return [v for v in model.non_trainable_variables if v.dtype.startswith("float")]


def stateless_call(
    model: keras.Model,
    parameters: Sequence[Tensor],
    statistics: Sequence[Tensor],
    inputs: Tensor,
    training: bool,
) -> tuple[Tensor, list[Any]]:
    """Calls a model and leaves it as it was.

    Args:
        model: a built Keras model.
        parameters: values of its trainable variables, in its order.
        statistics: values of the variables of `statistics_of`, in that order.
        inputs: [B, ...].
        training: whether it is a call of training.

    Returns:
        What the model puts out, and the new values of these variables.
    """
    others = statistics_of(model)
    values = zip([*model.trainable_variables, *others], [*parameters, *statistics], strict=True)
    with keras.StatelessScope(state_mapping=list(values)) as scope:
        outputs = model(inputs, training=training)
    return outputs, [scope.get_current_value(variable) for variable in others]
