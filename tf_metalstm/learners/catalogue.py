"""The learners by name, as flags name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.mlp import mlp

LEARNERS: dict[str, Callable[..., keras.Model]] = {"conv4": conv4, "mlp": mlp}
# What a flag calls a precision, and Keras the policy.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def make_network(
    name: str, input_shape: tuple[int, ...], num_outputs: int, **options: Any
) -> keras.Model:
    """Builds the network called `name`.

    Args:
        name: one of `LEARNERS`.
        input_shape: of one input, (h, w, c) for images.
        num_outputs: logits, N.
        **options: further arguments of the function that builds the network.
    """
    if name not in LEARNERS:
        raise ValueError(f"--learner must be one of {', '.join(LEARNERS)}, got {name!r}.")
    return LEARNERS[name](input_shape, num_outputs, **options)


def make_learner(*arguments: Any, **options: Any) -> FunctionalLearner:
    """Builds a network, as `make_network` does, to be adapted."""
    return FunctionalLearner(make_network(*arguments, **options))
