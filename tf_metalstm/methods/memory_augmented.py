"""Memory-augmented neural networks: an LSTM that writes to a memory and reads from it.

Santoro, Bartunov, Botvinick, Wierstra & Lillicrap, "Meta-Learning with Memory-Augmented Neural
Networks", ICML 2016, section 3. At step t of a stream the inputs of the controller are the image
x_t, the label of the image before it, and what step t - 1 read from the memory:

    h_t      = LSTM([x_t, onehot(y_{t-1}), r_{t-1}], h_{t-1})

Each of the n heads j has its own linear layers on h_t:

    k_j      = tanh(K_j h_t)                              what is looked for
    a_j      = tanh(A_j h_t)                              what is written
    s_j      = sigmoid(b_j h_t)                           where: the slots read last, or little used
    w^w_j    = s_j w^r_j(t-1) + (1 - s_j) w^lu(t-1)
    M_t      = (M_{t-1}, its least used slot set to 0) + sum over j of w^w_j a_j'
    w^r_j    = softmax over slots i of cos(k_j, M_t[i])
    r_j      = sum over i of w^r_j[i] M_t[i]
    w^u_t    = g w^u_{t-1} + sum over j of (w^r_j + w^w_j)
    logits_t = O [h_t, r_t]

w^lu(t-1) is 1 at the n slots with the smallest w^u_{t-1}, else 0: each head writes to all of them,
and only the first is cleared before. The paper writes the key itself. Public implementations that
reach its numbers write A_j h_t. Without the memory the method is an LSTM, as in the paper.

    paper          code             shape
    x_t, y_{t-1}   inputs           [E, D + N]
    M              memory           [E, slots, width]
    w^r, w^w       read, written    [E, heads, slots]
    w^lu           free             [E, slots]
    w^u            usage            [E, slots]
    r              contents         [E, heads * width]
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.data.tasks import STREAMS
from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import Builder, Method, TrainedOptions
from tf_metalstm.objectives import CLASSIFICATION
from tf_metalstm.options import OptionError, option
from tf_metalstm.parts import Part

_EMPTY = 1e-6  # initial value of the memory; not 0, because cosines need a direction


_WITH_MEMORY = {"lstm_alone": False}


@dataclass(frozen=True)
class MemoryAugmentedOptions(TrainedOptions):
    """Options of memory-augmented networks."""

    controller_units: int = option(
        200, "Units of the LSTM that controls the memory.", at_least=1, alike=True, settled=True
    )
    lstm_alone: bool = option(
        False,
        "Use the LSTM without the memory: the baseline of the paper.",
        alike=True,
        settled=True,
    )
    memory_slots: int = option(
        128,
        "Number of slots of the memory.",
        at_least=1,
        alike=True,
        settled=True,
        only_with=_WITH_MEMORY,
    )
    memory_width: int = option(
        40,
        "Length of a slot of the memory.",
        at_least=1,
        alike=True,
        settled=True,
        only_with=_WITH_MEMORY,
    )
    memory_heads: int = option(
        4,
        "Number of heads that read from the memory and write to it.",
        at_least=1,
        alike=True,
        settled=True,
        only_with=_WITH_MEMORY,
    )
    usage_decay: float = option(
        0.95,
        "Factor on the usage of a slot in each step.",
        at_least=0,
        below=1,
        settled=True,
        only_with=_WITH_MEMORY,
    )


class MemoryState(NamedTuple):
    """The state of the memory at a step; see the table above."""

    memory: Tensor
    read: Tensor
    usage: Tensor


_State = tuple[list[Tensor], MemoryState | tuple[()], Tensor]
"""State of the controller, of the memory, and what was read last."""


class Heads(NamedTuple):
    """The outputs of the controller for the heads.

    keys: k, [E, heads, width].
    values: a, [E, heads, width].
    gates: s, [E, heads].
    """

    keys: Tensor
    values: Tensor
    gates: Tensor


def empty_memory(
    num_tasks: Tensor | int, slots: int, width: int, heads: int, dtype: Any
) -> MemoryState:
    """Returns the state before the first step; slot 0 counts as used and read."""
    first = tf.one_hot(0, slots, dtype=dtype)
    return MemoryState(
        tf.fill([num_tasks, slots, width], tf.constant(_EMPTY, dtype)),
        tf.tile(first[tf.newaxis, tf.newaxis], [num_tasks, heads, 1]),
        tf.tile(first[tf.newaxis], [num_tasks, 1]),
    )


def least_used(usage: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Returns w^lu [E, slots], 1 at the slots with the smallest usages, and the first of them."""
    slots = tf.math.top_k(-usage, heads).indices
    each = tf.one_hot(slots, usage.shape[-1], dtype=usage.dtype)
    return tf.reduce_sum(each, axis=1), each[:, 0]


def addresses(keys: Tensor, memory: Tensor) -> Tensor:
    """Returns w^r, the softmax of the cosines of keys [E, heads, width] with all slots."""
    # Scaling the products is cheaper than scaling the memory.
    lengths = tf.maximum(tf.reduce_sum(tf.square(memory), axis=-1), 1e-12)
    inverse = tf.math.rsqrt(lengths)[:, tf.newaxis]
    keys = tf.math.l2_normalize(keys, axis=-1)
    return tf.nn.softmax(tf.matmul(keys, memory, transpose_b=True) * inverse)


def access(state: MemoryState, heads: Heads, usage_decay: float) -> tuple[MemoryState, Tensor]:
    """Writes to the memory and then reads from it.

    Returns:
        The new state, and r of all heads, [E, heads * width].
    """
    free, least = least_used(state.usage, heads.keys.shape[1])
    gates = heads.gates[..., tf.newaxis]
    written = gates * state.read + (1.0 - gates) * free[:, tf.newaxis]
    memory = state.memory * (1.0 - least)[..., tf.newaxis]  # the least used slot is cleared
    memory += tf.matmul(written, heads.values, transpose_a=True)
    read = addresses(heads.keys, memory)
    usage = usage_decay * state.usage + tf.reduce_sum(read + written, axis=1)
    numbers = heads.keys.shape[1] * heads.keys.shape[2]
    return MemoryState(memory, read, usage), tf.reshape(tf.matmul(read, memory), [-1, numbers])


@keras.saving.register_keras_serializable("tf_metalstm")
class MemoryAugmentedNetwork(Method):
    """Answers at each step of a stream, before it sees the label of that step.

    Its loss is the cross-entropy of all steps, and its score is the accuracy of all steps.

    Args:
        num_inputs: D, number of values of an image.
        num_way: N, number of classes of a stream.
        controller_units: units of the LSTM.
        lstm_alone: whether there is no memory.
        memory_slots: number of slots of the memory.
        memory_width: length of a slot.
        memory_heads: number of heads that read and write.
        usage_decay: g.
        name: leave it as it is: weights in checkpoints are found by it.

    Call arguments:
        inputs: images [E, T, ...] and previous_labels [E, T], -1 at the first step.

    Returns:
        logits, [E, T, N].
    """

    part = Part(
        "memory_augmented",
        "Memory-augmented network",
        "Santoro et al., ICML 2016",
        MemoryAugmentedOptions,
    )
    kinds: ClassVar[tuple[str, ...]] = (STREAMS,)

    def __init__(
        self,
        num_inputs: int,
        num_way: int,
        controller_units: int = 200,
        lstm_alone: bool = False,
        memory_slots: int = 128,
        memory_width: int = 40,
        memory_heads: int = 4,
        usage_decay: float = 0.95,
        name: str = "memory_augmented",
        **kwargs: Any,
    ) -> None:
        super().__init__(CLASSIFICATION, name=name, **kwargs)
        self.options = MemoryAugmentedOptions(
            None,
            controller_units,
            lstm_alone,
            memory_slots,
            memory_width,
            memory_heads,
            usage_decay,
        )
        if memory_heads > memory_slots:
            raise OptionError(
                "memory_heads",
                f"is {memory_heads} but the memory has {memory_slots} slots, and the heads write "
                "to as many slots as there are heads: lower memory_heads, or raise memory_slots.",
            )
        self.num_inputs, self.num_way = num_inputs, num_way
        read_width = 0 if lstm_alone else memory_heads * memory_width
        self.controller = keras.layers.LSTMCell(
            controller_units, dtype=self.dtype_policy, name="controller"
        )
        self.controller.build((None, num_inputs + num_way + read_width))
        self.answer = self._layer(controller_units + read_width, num_way, "answer")
        if not lstm_alone:
            self.keys, self.values = (
                self._layer(controller_units, read_width, name, "tanh")
                for name in ("keys", "values")
            )
            self.gates = self._layer(controller_units, memory_heads, "gates", "sigmoid")
        self.built = True

    def _layer(
        self, num_inputs: int, units: int, name: str, activation: str | None = None
    ) -> keras.layers.Dense:
        layer = keras.layers.Dense(units, activation, dtype=self.dtype_policy, name=name)
        layer.build((None, num_inputs))
        return layer

    @classmethod
    def from_options(
        cls, options: MemoryAugmentedOptions, builder: Builder
    ) -> MemoryAugmentedNetwork:
        return cls(
            math.prod(builder.tasks.input_shape),
            builder.tasks.num_outputs,
            options.controller_units,
            options.lstm_alone,
            options.memory_slots,
            options.memory_width,
            options.memory_heads,
            options.usage_decay,
        )

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: no weight depends on the length of a stream."""

    def call(self, inputs: Mapping[str, Tensor], training: bool = False) -> Tensor:
        """Answers at every step of the E streams."""
        images, labels = inputs["images"], tf.cast(inputs["previous_labels"], tf.int32)
        num_tasks, length = tf.shape(images)[0], images.shape[1]
        flat = tf.reshape(images, [num_tasks, length, self.num_inputs])
        seen = tf.concat(
            [
                tf.cast(flat, self.compute_dtype),
                tf.one_hot(labels, self.num_way, dtype=self.compute_dtype),
            ],
            axis=-1,
        )
        state = (self.controller.get_initial_state(num_tasks), *self._begin(num_tasks))
        outputs = tf.TensorArray(self.compute_dtype, length)

        # A loop in the graph: XLA compiles one step, not all of them.
        def step(number: Tensor, state: _State, outputs: Any) -> tuple[Tensor, _State, Any]:
            lstm, memory, contents = state
            hidden, lstm = self.controller(tf.concat([seen[:, number], contents], axis=-1), lstm)
            if isinstance(memory, MemoryState):  # and not an LSTM alone
                memory, contents = access(memory, self._heads(hidden), self.options.usage_decay)
            output = tf.concat([hidden, contents], axis=-1)
            return number + 1, (lstm, memory, contents), outputs.write(number, output)

        loop = tf.while_loop(
            lambda number, *_: number < length,
            step,
            (tf.constant(0), state, outputs),
            maximum_iterations=length,
        )
        return self.answer(tf.transpose(loop[-1].stack(), [1, 0, 2]))

    def _begin(self, num_tasks: Tensor) -> tuple[MemoryState | tuple[()], Tensor]:
        """Returns an empty memory, and zeros as what was read from it."""
        options = self.options
        if options.lstm_alone:
            return (), tf.zeros([num_tasks, 0], self.compute_dtype)
        slots, width, heads = options.memory_slots, options.memory_width, options.memory_heads
        state = empty_memory(num_tasks, slots, width, heads, self.compute_dtype)
        return state, tf.zeros([num_tasks, heads * width], self.compute_dtype)

    def _heads(self, hidden: Tensor) -> Heads:
        shape = [-1, self.options.memory_heads, self.options.memory_width]
        keys, values = (tf.reshape(layer(hidden), shape) for layer in (self.keys, self.values))
        return Heads(keys, values, self.gates(hidden))

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal method with fresh weights."""
        own = dataclasses.asdict(self.options)
        del own["pretrained_run_dir"]
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            "num_inputs": self.num_inputs,
            "num_way": self.num_way,
            **own,
        }
