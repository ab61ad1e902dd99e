"""A fully connected learner, for functions, for MAML's Omniglot "no conv", and for tests.

It has layers of [linear, optional batch norm, activation], then a linear layer. MAML has
two layers of 40 for the sine wave, and 256, 128, 64, 64 with batch norm for Omniglot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tf_metalstm.learners.base import Learner, NetworkOptions
from tf_metalstm.learners.batch_normalization import BatchNormalization
from tf_metalstm.options import OptionError, option
from tf_metalstm.parts import Part


@dataclass(frozen=True)
class MLPOptions(NetworkOptions):
    """Options of the fully connected network."""

    hidden_layers: tuple[int, ...] = option(
        (64,), "Width of each hidden layer.", at_least=1, alike=True, settled=True
    )
    mlp_batch_normalization: bool = option(
        False, "Use batch norm in each hidden layer.", alike=True, settled=True
    )


class MLP(Learner):
    """The fully connected network."""

    part = Part("mlp", "Fully connected network", "Finn et al., ICML 2017", MLPOptions)

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        options: MLPOptions,
        input_shape: tuple[int, ...],
        num_outputs: int,
        statistics_momentum: float,
    ) -> keras.Model:
        return mlp(
            input_shape,
            num_outputs,
            options.hidden_layers,
            batch_normalization=options.mlp_batch_normalization,
            **options.network_arguments(statistics_momentum),
        )


def mlp(
    input_shape: tuple[int, ...],
    num_outputs: int,
    hidden_layers: Sequence[int] = (64,),
    *,
    activation: str = "relu",
    batch_normalization: bool = False,
    batch_norm_scale: bool = True,
    statistics_momentum: float = 0.05,
    dtype: str = "float32",
) -> keras.Model:
    """Returns the network.

    Args:
        input_shape: shape of one input; inputs are flattened first.
        num_outputs: N, number of logits.
        hidden_layers: width of each hidden layer; may be empty.
        activation: activation after each hidden layer.
        batch_normalization: whether there is batch norm before each activation.
        batch_norm_scale: whether batch norm has a gamma.
        statistics_momentum: weight of the *old* running statistics when a support pass updates
            them.
        dtype: "float32", "float64", or "mixed_bfloat16". The last has bfloat16, but float32 for
            parameters, the moments of batch norm and the last layer.

    Returns:
        A built model, [B, *input_shape] -> [B, num_outputs].

    Raises:
        OptionError: a width is not positive.
    """
    if any(width < 1 for width in hidden_layers):
        raise OptionError("hidden_layers", f"must be positive widths, got {list(hidden_layers)}.")
    full = keras.dtype_policies.get(dtype).variable_dtype
    inputs = keras.Input(input_shape, dtype=full)
    x = keras.layers.Flatten(dtype=dtype)(inputs)
    for i, width in enumerate(hidden_layers, 1):
        x = keras.layers.Dense(width, dtype=dtype, name=f"hidden_{i}")(x)
        if batch_normalization:
            x = BatchNormalization(
                momentum=statistics_momentum,
                epsilon=1e-3,
                scale=batch_norm_scale,
                dtype=dtype,
                name=f"norm_{i}",
            )(x)
        x = keras.layers.Activation(activation, dtype=dtype, name=f"{activation}_{i}")(x)
    logits = keras.layers.Dense(num_outputs, dtype=full, name="linear")(x)
    return keras.Model(inputs, logits, name="mlp")
