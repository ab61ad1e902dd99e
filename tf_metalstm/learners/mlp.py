"""A fully connected learner, small enough for tests and for inputs that are no images."""

from __future__ import annotations

from collections.abc import Sequence

import keras


def mlp(
    input_shape: tuple[int, ...],
    num_outputs: int,
    hidden_units: Sequence[int] = (64,),
    *,
    activation: str = "relu",
    dtype: str = "float32",
) -> keras.Model:
    """Builds the network.

    Args:
        input_shape: of one input, flattened first.
        num_outputs: logits, N.
        hidden_units: width of each hidden layer; may be empty.
        activation: between the layers.
        dtype: "float32" or "float64".

    Returns:
        A built model, [B, *input_shape] -> [B, num_outputs].
    """
    inputs = keras.Input(input_shape, dtype=dtype)
    x = keras.layers.Flatten(dtype=dtype)(inputs)
    for i, units in enumerate(hidden_units, 1):
        x = keras.layers.Dense(units, activation=activation, dtype=dtype, name=f"hidden_{i}")(x)
    logits = keras.layers.Dense(num_outputs, dtype=dtype, name="linear")(x)
    return keras.Model(inputs, logits, name="mlp")
