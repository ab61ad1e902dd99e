"""Gates of the meta-LSTM that depend on the tensor and on the number of the update.

All coordinates share the weights of the meta-LSTM, and it does not see which tensor a coordinate
belongs to. There are two ways to tell it, for tensor l and update t:

    multipliers    f = 1 - a_{l,t} (1 - sigmoid(.)),   i = b_{l,t} sigmoid(.)
    inputs         the first layer sees [pre(loss_t), pre(grad_t), u_l, v_t]

a and b start at 1. They are the multipliers of weight decay and learning rate in ALFA (Baik et al.,
"Meta-Learning with Adaptive Hyperparameters", NeurIPS 2020, equation 5), whose update is that of
the meta-LSTM with gates for each layer. u and v are learned vectors. If there are more updates than
multipliers or vectors, the later updates use the last ones.

    in words       code                  shape
    a_{l,t}        forget_multiplier     [updates, tensors]
    b_{l,t}        input_multiplier      [updates, tensors]
    u_l            tensor_vectors        [tensors, U]
    v_t            update_vectors        [updates, U]
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.parameters import Blocks
from tf_metalstm.rules.base import Gates
from tf_metalstm.rules.places import of_blocks, row_of


class GateMultipliers(keras.layers.Layer):
    """Learned multipliers of both gates.

    Args:
        num_updates: number of updates with their own multipliers.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, num_updates: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_updates = num_updates

    def build(self, blocks: Blocks) -> None:
        """Creates a and b, which start at 1."""
        self.blocks = blocks
        shape = (self.num_updates, len(blocks))
        self.forget_multiplier = self.add_weight(
            shape=shape, initializer="ones", name="forget_multiplier"
        )
        self.input_multiplier = self.add_weight(
            shape=shape, initializer="ones", name="input_multiplier"
        )
        self.built = True

    def call(self, gates: Gates, updates: Tensor) -> Gates:
        """Returns the multiplied gates [P]; `updates` is the number of updates before this one."""
        row = row_of(updates, self.num_updates)
        forget, entry = (
            of_blocks(tf.convert_to_tensor(weight)[row], self.blocks, gates.input)
            for weight in (self.forget_multiplier, self.input_multiplier)
        )
        return Gates(1.0 - forget * (1.0 - gates.forget), entry * gates.input)


class PlaceVectors(keras.layers.Layer):
    """Learned vectors of the tensor and of the update.

    Args:
        num_updates: number of updates with their own vector.
        units: U, the length of a vector.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, num_updates: int, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_updates, self.units = num_updates, units

    def build(self, blocks: Blocks) -> None:
        """Creates u and v."""
        self.blocks = blocks
        drawn = keras.initializers.RandomUniform(-1.0, 1.0)
        self.tensor_vectors = self.add_weight(
            shape=(len(blocks), self.units), initializer=drawn, name="tensor_vectors"
        )
        self.update_vectors = self.add_weight(
            shape=(self.num_updates, self.units), initializer=drawn, name="update_vectors"
        )
        self.built = True

    def call(self, theta: Tensor, updates: Tensor) -> Tensor:
        """Returns u and v for every coordinate of theta [P], after `updates` updates, [P, 2 U]."""
        by_tensor = of_blocks(tf.convert_to_tensor(self.tensor_vectors), self.blocks, theta)
        by_update = tf.convert_to_tensor(self.update_vectors)[row_of(updates, self.num_updates)]
        repeated = tf.broadcast_to(by_update, tf.shape(by_tensor))
        return tf.concat([by_tensor, repeated], axis=1)
