"""Calls a Keras model with other values of its variables.

`keras.Model.stateless_call` does this too, but it does not use `__call__`. Only `__call__` passes
`training` to the layers inside a block of a user that has no argument `training`. Without it a
block such as `norm(conv(x))` would normalize its support images by running statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tf_metalstm.episode import Tensor


def statistics_of(model: keras.Model) -> list[Any]:
    """Returns the float variables that are not trained: the running moments of batch normalization.

    The random seeds of recurrent layers without dropout are not floats and are left out.
    """
    return [v for v in model.non_trainable_variables if v.dtype.startswith("float")]


def stateless_call(
    model: keras.Model,
    parameters: Sequence[Tensor],
    statistics: Sequence[Tensor],
    inputs: Tensor,
    training: bool,
) -> tuple[Tensor, list[Any]]:
    """Returns the outputs of a model for other values of its variables; does not change the model.

    Args:
        model: a built Keras model.
        parameters: values of its trainable variables, in its order.
        statistics: values of the variables of `statistics_of`, in their order.
        inputs: [B, ...].
        training: whether the model runs in training mode.

    Returns:
        The outputs, and the new values of the variables of `statistics_of`.
    """
    others = statistics_of(model)
    values = zip([*model.trainable_variables, *others], [*parameters, *statistics], strict=True)
    with keras.StatelessScope(state_mapping=list(values)) as scope:
        outputs = model(inputs, training=training)
    return outputs, [scope.get_current_value(variable) for variable in others]
