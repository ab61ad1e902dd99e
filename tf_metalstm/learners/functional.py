"""A Keras model as a pure function of one flat parameter vector.

    logits, statistics = learner.apply(theta, statistics, images, training)

theta [P] holds every trainable variable of the model in the order in which Keras
lists them, statistics [S] every other one (the running moments of batch
normalization). Nothing is kept in the model: `stateless_call` reads the values given
to it and returns the new ones.
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
        model: a built Keras model with float variables. Its current values are
            where `initial_parameters` and `initial_statistics` start. Layers that would be wrong in
            an episode are replaced in a copy of it, or refused: see `learners/layers.py`.
        second_order: replace those too that would be wrong where the gradient is differentiated.

    Attributes:
        trained_statistics: a variable [S], the running statistics of a training. Where it is set
            every pass is normalized by them, and none collects others. None at first.

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
        # Read once, here: inside a traced function variables have no values to read.
        self._initial_parameters = _flat_values(model.trainable_variables, self.dtype)
        self._initial_statistics = _flat_values(statistics_of(model), self.dtype)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch: (h, w, c) for images."""
        return input_shape(self.model)

    @property
    def num_outputs(self) -> int:
        """Logits of one input."""
        return output_size(self.model)

    @property
    def dtype(self) -> str:
        """Type of theta and of the statistics."""
        # Not model.dtype: that is a policy of the whole model, which its layers need not follow.
        return self.model.trainable_variables[0].dtype

    def num_before_last_layer(self) -> int:
        """Returns how many coordinates of theta come before those of the model's last layer.

        Raises:
            ValueError: the last layer has no parameters, or there are none before it.
        """
        last = self.model.layers[-1].trainable_variables
        before = self.num_parameters - sum(math.prod(variable.shape) for variable in last)
        if not last or not before:
            raise ValueError(
                f"The last layer of {self.model.name!r} has {self.num_parameters - before} of its "
                f"{self.num_parameters} parameters: learn_linear=false and pretrained_run_dir "
                "need a linear layer with others before it."
            )
        return before

    def last_layer_blocks(self) -> Blocks:
        """Returns the blocks of the model's last layer; none where it has no parameters."""
        paths = {variable.path for variable in self.model.layers[-1].trainable_variables}
        return tuple(block for block in self.parameter_blocks if block.name in paths)

    def facts(self) -> dict[str, int]:
        """Returns what a manifest says of theta: P."""
        return {"num_parameters": self.num_parameters}

    def initial_parameters(self) -> np.ndarray:
        """Returns the model's trainable values, flat, [P]."""
        return self._initial_parameters

    def initial_statistics(self) -> Any:
        """Returns the statistics that every episode starts from, flat, [S]."""
        if self.trained_statistics is not None:
            return tf.convert_to_tensor(self.trained_statistics)
        return self._initial_statistics

    @property
    def moves_statistics(self) -> bool:
        """Whether a pass of training changes the statistics: their momentum is below 1."""
        return any(layer.momentum < 1.0 for layer in batch_norms(self.model))

    def moved_statistics(self, theta: Tensor, images: Tensor) -> Tensor:
        """Returns the statistics that one more batch moves, by the momentum of the model, [S].

        Args:
            theta: [P].
            images: [B, h, w, c].
        """
        return self._apply(theta, self.initial_statistics(), images, training=True)[1]

    def apply(
        self, theta: Tensor, statistics: Tensor, images: Tensor, training: bool
    ) -> tuple[Tensor, Tensor]:
        """Runs the model at theta.

        Args:
            theta: [P].
            statistics: [S].
            images: [B, h, w, c].
            training: True normalizes with the moments of `images` and returns updated
                statistics; False normalizes with `statistics` and returns them unchanged, as is
                always done under `trained_statistics`.

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
    """Returns the tensors of which `blocks` says that a vector is made."""
    if not blocks:
        return []
    parts = tf.split(vector, [block.size for block in blocks])
    # A vector has its shape: T updates of 18 variables make for many operations of no use.
    return [
        part if len(block.shape) == 1 else tf.reshape(part, block.shape)
        for part, block in zip(parts, blocks, strict=True)
    ]
