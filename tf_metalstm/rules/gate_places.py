"""Gates of the meta-LSTM that depend on the tensor and on the number of the update.

All coordinates share the weights of the meta-LSTM, and it does not see which tensor a coordinate
belongs to. There are three ways to tell it, for tensor l and update t:

    multipliers    f = 1 - a_{l,t} (1 - sigmoid(.)),   i = b_{l,t} sigmoid(.)
    inputs         the first layer sees [pre(loss_t), pre(grad_t), u_l, v_t]
    tensors        f = sigmoid(. + p_{l,t}),           i = sigmoid(. + q_{l,t})
                   H_{l,t} = GRU([log rms(grad_t of l), loss_t], H_{l,t-1})
                   (p_{l,t}, q_{l,t}) = H_{l,t} R

a and b start at 1. They are the multipliers of weight decay and learning rate in ALFA (Baik et al.,
"Meta-Learning with Adaptive Hyperparameters", NeurIPS 2020, equation 5), whose update is that of
the meta-LSTM with gates for each layer. u and v are learned vectors. If there are more updates than
multipliers or vectors, the later updates use the last ones. All tensors share the weights of the
GRU, and each has its own state. R starts at 0, so the gates start as those of the paper.

    in words       code                  shape
    a_{l,t}        forget_multiplier     [updates, tensors]
    b_{l,t}        input_multiplier      [updates, tensors]
    u_l            tensor_vectors        [tensors, U]
    v_t            update_vectors        [updates, U]
    H_{l,t}        hidden                [tensors, G]
    R              readout               [G, 2]
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.parameters import Blocks
from tf_metalstm.rules.base import Gates
from tf_metalstm.rules.places import means_of_blocks, of_blocks, row_of

_SMALLEST = 1e-10  # of a mean square whose logarithm is taken


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


class TensorGates(keras.layers.Layer):
    """A GRU with a state for each tensor, whose output is added to the gates before the sigmoid.

    Args:
        units: G, units of the GRU.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.cell = keras.layers.GRUCell(units, dtype=self.dtype_policy, name="tensor_cell")

    def build(self, blocks: Blocks) -> None:
        """Creates the weights, which do not depend on theta."""
        self.blocks = blocks
        self.cell.build((None, 2))
        self.readout = self.add_weight(shape=(self.units, 2), initializer="zeros", name="readout")
        self.built = True

    def initial_state(self) -> Tensor:
        """Returns the H of every tensor before the first update, zeros [tensors, G]."""
        return tf.zeros([len(self.blocks), self.units], self.compute_dtype)

    def call(self, gradient: Tensor, loss: Tensor, hidden: Tensor) -> tuple[Gates, Tensor]:
        """Returns what is added to both gates, [P] each, and the next H.

        Call arguments:
            gradient: of the loss with respect to theta, [P].
            loss: at theta, a scalar.
            hidden: H, [tensors, G].
        """
        squares = means_of_blocks(tf.square(gradient), self.blocks)
        log_rms = 0.5 * tf.math.log(squares + _SMALLEST)
        seen = tf.stack([log_rms, tf.fill(tf.shape(log_rms), loss)], axis=1)
        hidden, _ = self.cell(seen, [hidden])
        added = of_blocks(tf.matmul(hidden, self.readout), self.blocks, gradient)
        return Gates(*tf.unstack(added, axis=1)), hidden
