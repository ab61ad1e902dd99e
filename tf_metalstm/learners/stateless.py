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
    """Returns the float variables that a training pass updates: the running moments of batch norm.

    The random seeds of recurrent layers without dropout are not floats and are left out. So are
    the variables of layers that are not trainable, which keep their values.
    """
    frozen = {id(variable) for variable in frozen_variables(model)}
    moved = [v for v in model.non_trainable_variables if v.dtype.startswith("float")]
    return [variable for variable in moved if id(variable) not in frozen]


def frozen_variables(model: keras.Model) -> list[Any]:
    """Returns the variables of layers that are not trainable, in the order of the model."""
    frozen = {
        id(variable)
        for layer in model._flatten_layers(include_self=False)
        if not layer.trainable
        for variable in layer.variables
    }
    return [variable for variable in model.variables if id(variable) in frozen]


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
