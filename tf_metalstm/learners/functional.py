"""A Keras model as a pure function of one flat parameter vector.

    logits, statistics = learner.apply(theta, statistics, images, training)

theta [P] has all trainable variables of the model, in the order of Keras. The
statistics [S] are its other variables, the running moments of batch normalization.
The model itself does not change: `stateless_call` gets the values and returns the
new ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.learners.layers import adaptable, batch_norms, input_shape, output_size
from tf_metalstm.learners.stateless import stateless_call, statistics_of
from tf_metalstm.parameters import Blocks, blocks_of, num_parameters


class FunctionalLearner:
    """Any built Keras model (images -> logits) as a function of theta [P].

    Args:
        model: a built Keras model with float variables. Its values become `initial_parameters` and
            `initial_statistics`. Layers that would be wrong in an episode are replaced in a copy of
            the model, or refused; see `learners/layers.py`.
        second_order: whether to replace also layers that would be wrong if the gradient is
            differentiated.

    Attributes:
        trained_statistics: a variable [S], the running statistics of a training. If it is set,
            every pass is normalized by them, and no pass collects others. It is None at first.

    Raises:
        ValueError: the model is not built, or has layers that cannot be adapted.
    """

    def __init__(self, model: keras.Model, second_order: bool = False):
        self.model = model = adaptable(model, second_order)
        self.parameter_blocks = _blocks(model.trainable_variables)
        self.statistics_blocks = _blocks(statistics_of(model))
        self.num_parameters = num_parameters(self.parameter_blocks)
        self.num_statistics = num_parameters(self.statistics_blocks)
        self.trained_statistics: keras.Variable | None = None
        # The values are read here, because inside a traced function variables have no values.
        self._initial_parameters = _flat_values(model.trainable_variables, self.dtype)
        self._initial_statistics = _flat_values(statistics_of(model), self.dtype)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch: (h, w, c) for images."""
        return input_shape(self.model)

    @property
    def num_outputs(self) -> int:
        """Number of logits of one input."""
        return output_size(self.model)

    @property
    def dtype(self) -> str:
        """Type of theta and of the statistics."""
        # model.dtype may differ, because layers may have policies of their own.
        return self.model.trainable_variables[0].dtype

    def num_before_last_layer(self) -> int:
        """Returns the number of coordinates of theta before those of the model's last layer.

        Raises:
            ValueError: the last layer has no parameters, or no other layer has any.
        """
        last = self.model.layers[-1].trainable_variables
        before = self.num_parameters - sum(math.prod(variable.shape) for variable in last)
        if not last or not before:
            raise ValueError(
                f"The last layer of {self.model.name!r} has {self.num_parameters - before} of its "
                f"{self.num_parameters} parameters: learn_linear=false and pretrained_run_dir "
                "need a linear last layer, and parameters before it."
            )
        return before

    def last_layer_blocks(self) -> Blocks:
        """Returns the blocks of the model's last layer; empty if it has no parameters."""
        paths = {variable.path for variable in self.model.layers[-1].trainable_variables}
        return tuple(block for block in self.parameter_blocks if block.name in paths)

    def facts(self) -> dict[str, int]:
        """Returns the entry of a manifest about theta: P."""
        return {"num_parameters": self.num_parameters}

    def initial_parameters(self) -> np.ndarray:
        """Returns the values of the model's trainable variables, flat, [P]."""
        return self._initial_parameters

    def initial_statistics(self) -> Any:
        """Returns the statistics at the start of every episode, flat, [S]."""
        if self.trained_statistics is not None:
            return tf.convert_to_tensor(self.trained_statistics)
        return self._initial_statistics

    @property
    def moves_statistics(self) -> bool:
        """Whether a training pass changes the statistics, because their momentum is below 1."""
        return any(layer.momentum < 1.0 for layer in batch_norms(self.model))

    def moved_statistics(self, theta: Tensor, images: Tensor) -> Tensor:
        """Returns the statistics after one more batch, updated with the model's momentum, [S].

        Args:
            theta: parameters, [P].
            images: inputs, [B, h, w, c].
        """
        return self._apply(theta, self.initial_statistics(), images, training=True)[1]

    def apply(
        self, theta: Tensor, statistics: Tensor, images: Tensor, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns the outputs of the model at theta, and its new statistics.

        Args:
            theta: parameters, [P].
            statistics: running statistics, [S].
            images: inputs, [B, h, w, c].
            training: True normalizes with the moments of `images` and returns updated
                statistics; False normalizes with `statistics` and returns them unchanged. With
                `trained_statistics` it is always as if False.

        Returns:
            Logits [B, N] and statistics [S].
        """
        training = training and self.trained_statistics is None
        return self._apply(theta, statistics, images, training)

    def _apply(
        self, theta: Tensor, statistics: Tensor, images: Tensor, training: bool
    ) -> tuple[Tensor, Tensor]:
        logits, new = stateless_call(
            self.model,
            unflatten(theta, self.parameter_blocks),
            unflatten(statistics, self.statistics_blocks),
            images,
            training,
        )
        if not (training and self.statistics_blocks):
            return logits, statistics
        return logits, flatten(new)


def _flat_values(variables: Sequence[Any], dtype: str) -> np.ndarray:
    values = [keras.ops.convert_to_numpy(variable).ravel() for variable in variables]
    return np.concatenate(values) if values else np.zeros([0], dtype)


def _blocks(variables: Sequence[Any]) -> Blocks:
    return blocks_of((variable.path, tuple(variable.shape)) for variable in variables)


def flatten(values: Sequence[Tensor]) -> Tensor:
    """Returns tensors as one vector."""
    return tf.concat([v if len(v.shape) == 1 else tf.reshape(v, [-1]) for v in values], axis=0)


def unflatten(vector: Tensor, blocks: Blocks) -> list[Tensor]:
    """Returns the tensors of a vector with these blocks."""
    if not blocks:
        return []
    parts = tf.split(vector, [block.size for block in blocks])
    # Vectors are not reshaped, because T updates of 18 variables would add many operations.
    return [
        part if len(block.shape) == 1 else tf.reshape(part, block.shape)
        for part, block in zip(parts, blocks, strict=True)
    ]
