"""The hierarchical RNN: recurrent networks of coordinates, of tensors and of the problem.

Wichrowska et al., "Learned optimizers that scale and generalize", ICML 2017, sections 3.2 to 3.4.
Running means of the gradient on S = 4 time scales, each twice as long as the one before:

    beta_1 = beta,  beta_{s+1} = sqrt(beta_s)
    gbar_s <- beta_s gbar_s + (1 - beta_s) grad
    lambda_s <- gamma lambda_s + (1 - gamma) (gbar_s^2 + 1e-12)
    m_s = asinh(gbar_s / sqrt(lambda_s + 1e-16))

The network of a coordinate reads x: m_1 ... m_4, m_1 m_2, m_2 m_3, m_3 m_4, log lambda_s minus its
mean over s, and log eta minus its mean over the problem. The three networks, where ^ is the mean
over the level below and b is a bias from the level above:

    h <- GRU(x, h;  b = A_1 H + A_2 G)         every coordinate
    H <- GRU(^[h, x], H;  b = A_3 G)           every tensor
    G <- GRU(^H, G)                            the problem

    d = w_d . h + sum_s v_s m_s,  divided by its root mean square over the tensor
    l = log eta + w_e . h + b_e,  at least -33 and at most 33, or log of `largest_rate`
    theta <- theta - exp(l + o) d
    log eta <- a log eta + (1 - a) l
    gamma = sigmoid(w_g . h + b_g),  beta = sigmoid(w_b . h + b_b)

In the authors' code G reads only the last tensor. Here it reads the mean of all, as in the paper.
Their attention, which takes the gradient at another point, is off by default there; it is left out.

    paper            code            shape
    h, H, G          coordinates, tensors, whole   [P, C], [number of tensors, D], [G]
    eta              exp(log_rates)  [P]
    w_d, w_e, ...    readout_kernel  [C, 4]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import Options, check_bounds, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.rules.base import Rule

NUM_SCALES = 4
_NUM_INPUTS = 3 * NUM_SCALES
_LARGEST_LOG_RATE = 33.0
# sigmoid(2.2) = 0.90 and sigmoid(3.2) = 0.96
_INPUT_DECAY, _SCALE_DECAY, _RATE_MOMENTUM, _GATE_BIAS = 2.2, 3.2, 3.2, 2.2
_OFFSET = -1.0
_WIDTH = 0.5  # initial weights have the deviation _WIDTH / sqrt(number of inputs)
_SEED = 0


@dataclass(frozen=True)
class HierarchicalRNNOptions(Options):
    """Options of the hierarchical RNN."""

    coordinate_units: int = option(
        10, "Units of the network of a coordinate.", at_least=1, alike=True, settled=True
    )
    tensor_units: int = option(
        20, "Units of the network of a tensor.", at_least=1, alike=True, settled=True
    )
    global_units: int = option(
        20, "Units of the network of the problem.", at_least=1, alike=True, settled=True
    )
    first_rates: tuple[float, ...] = option(
        (1e-6, 1e-2),
        "Range of the learning rates before the first update, uniform in the logarithm: LOW,HIGH.",
        above=0,
        alike=True,
    )
    largest_rate: float | None = option(
        None,
        "Upper limit of the learning rates; default: e to the 33, as in the authors' code. In long "
        "runs rates can rise until theta is not finite.",
        above=0,
        alike=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds("first_rates", self.first_rates)


class HierarchicalRNNState(NamedTuple):
    """What one problem carries from update to update.

    coordinates: h, [P, C].
    tensors: H, [number of tensors, D].
    whole: G, [1, G].
    means: gbar, mean of the gradient on each time scale, [P, S].
    squares: lambda, mean of the squares of gbar, [P, S].
    input_decay: beta, [P]; 0 before the first update.
    scale_decay: gamma, [P]; 0 before the first update.
    log_rates: log eta, [P].
    """

    coordinates: Tensor
    tensors: Tensor
    whole: Tensor
    means: Tensor
    squares: Tensor
    input_decay: Tensor
    scale_decay: Tensor
    log_rates: Tensor


def updated_means(state: HierarchicalRNNState, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Returns gbar and lambda after one more gradient [P], [P, S] each."""
    decays = [state.input_decay]
    for _ in range(NUM_SCALES - 1):
        # The root has no derivative at 0, its value before the first update.
        begun = decays[-1] > 0.0
        root = tf.sqrt(tf.where(begun, decays[-1], tf.ones_like(decays[-1])))
        decays.append(tf.where(begun, root, tf.zeros_like(root)))
    decay = tf.stack(decays, axis=1)
    means = decay * state.means + (1.0 - decay) * gradient[:, tf.newaxis]
    kept = state.scale_decay[:, tf.newaxis]
    return means, kept * state.squares + (1.0 - kept) * (tf.square(means) + 1e-12)


def inputs_of(scaled: Tensor, squares: Tensor, log_rates: Tensor) -> Tensor:
    """Returns the inputs of the network of a coordinate, [P, 12].

    Args:
        scaled: m, [P, S].
        squares: lambda, [P, S].
        log_rates: log eta, [P].
    """
    logs = tf.math.log(squares + 1e-16)
    return tf.concat(
        [
            scaled,
            scaled[:, :-1] * scaled[:, 1:],
            logs - tf.reduce_mean(logs, axis=1, keepdims=True),
            (log_rates - tf.reduce_mean(log_rates))[:, tf.newaxis],
        ],
        axis=1,
    )


def _normal(num_inputs: int) -> Any:
    return keras.initializers.RandomNormal(0.0, _WIDTH / math.sqrt(num_inputs))


@keras.saving.register_keras_serializable("tf_metalstm")
class BiasedGRU(keras.layers.Layer):
    """A GRU cell whose gates and candidate get a bias from outside.

        r, u = sigmoid([x, h] W + b + outer)
        h <- u h + (1 - u) tanh([x, r h] W_c + b_c + outer_c)

    Args:
        units: H.

    Call arguments:
        inputs: x, [B, number of inputs].
        hidden: h, [B, H].
        outer: bias, [B or 1, 3 H], of r, u and the candidate.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, num_inputs: int) -> None:
        """Creates the weights."""
        rows = num_inputs + self.units
        gates = keras.initializers.Constant(_GATE_BIAS)
        self.gate_kernel = self._weight("gate_kernel", (rows, 2 * self.units), _normal(rows))
        self.gate_bias = self._weight("gate_bias", (2 * self.units,), gates)
        self.candidate_kernel = self._weight("candidate_kernel", (rows, self.units), _normal(rows))
        self.candidate_bias = self._weight("candidate_bias", (self.units,), "zeros")
        self.built = True

    def call(self, inputs: Tensor, hidden: Tensor, outer: Tensor | float = 0.0) -> Tensor:
        """Returns the next h, [B, H]."""
        of_gates = of_candidate = outer
        if isinstance(outer, tf.Tensor):
            of_gates, of_candidate = outer[:, : 2 * self.units], outer[:, 2 * self.units :]
        both = tf.concat([inputs, hidden], axis=1)
        gates = tf.sigmoid(tf.matmul(both, self.gate_kernel) + self.gate_bias + of_gates)
        reset, update = tf.split(gates, 2, axis=1)
        both = tf.concat([inputs, reset * hidden], axis=1)
        candidate = tf.matmul(both, self.candidate_kernel) + self.candidate_bias + of_candidate
        return update * hidden + (1.0 - update) * tf.tanh(candidate)

    def _weight(self, name: str, shape: tuple[int, ...], initializer: Any) -> Any:
        return self.add_weight(shape=shape, initializer=initializer, name=name)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tf_metalstm")
class HierarchicalRNN(Rule):
    """Three levels of recurrent networks, whose outputs are steps, learning rates and decays.

    There are 8,229 weights with the default sizes, and they do not depend on theta. The learning
    rates before the first update are drawn once: coordinate i of n has the same in every problem.

    Args:
        coordinate_units: C, units of the network of a coordinate.
        tensor_units: D, units of the network of a tensor.
        global_units: G, units of the network of the problem.
        low: lower limit of the first learning rates. Their logarithm is uniform; half of it is
            drawn for each tensor, half for each coordinate.
        high: upper limit of the first learning rates.
        largest_rate: upper limit of all learning rates; default: e to the 33.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "hierarchical_rnn",
        "Hierarchical RNN",
        "Wichrowska et al., ICML 2017",
        HierarchicalRNNOptions,
    )
    treats_coordinates_alike = False
    uses_loss = False
    takes_rows = False

    @classmethod
    def from_options(  # type: ignore[override]
        cls, options: HierarchicalRNNOptions
    ) -> HierarchicalRNN:
        low, high = options.first_rates
        units = (options.coordinate_units, options.tensor_units, options.global_units)
        return cls(*units, low, high, options.largest_rate)

    def __init__(
        self,
        coordinate_units: int = 10,
        tensor_units: int = 20,
        global_units: int = 20,
        low: float = 1e-6,
        high: float = 1e-2,
        largest_rate: float | None = None,
        name: str = "hierarchical_rnn",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        HierarchicalRNNOptions(
            coordinate_units, tensor_units, global_units, (low, high), largest_rate
        )  # checks
        self.units = (coordinate_units, tensor_units, global_units)
        self.low, self.high, self.largest_rate = low, high, largest_rate
        self._limit = math.log(largest_rate) if largest_rate else _LARGEST_LOG_RATE
        policy = self.dtype_policy
        self.coordinate_cell, self.tensor_cell, self.global_cell = (
            BiasedGRU(units, dtype=policy, name=name)
            for units, name in zip(self.units, ("coordinate", "tensor", "global"), strict=True)
        )

        # The cells have biases of their own.
        def linear(units: int, num_inputs: int, name: str) -> keras.layers.Dense:
            return keras.layers.Dense(
                units,
                use_bias=False,
                kernel_initializer=_normal(num_inputs),
                dtype=policy,
                name=name,
            )

        self.tensor_to_coordinate = linear(3 * coordinate_units, tensor_units, "tensor_bias")
        self.global_to_coordinate = linear(3 * coordinate_units, global_units, "global_bias")
        self.global_to_tensor = linear(3 * tensor_units, global_units, "global_tensor_bias")

    def build(self, blocks: Blocks) -> None:
        """Creates the weights and stores the number of coordinates of each tensor."""
        self.sizes = [block.size for block in blocks]
        coordinate, tensor, whole = self.units
        self.coordinate_cell.build(_NUM_INPUTS)
        self.tensor_cell.build(coordinate + _NUM_INPUTS)
        self.global_cell.build(tensor)
        self.tensor_to_coordinate.build((None, tensor))
        self.global_to_coordinate.build((None, whole))
        self.global_to_tensor.build((None, whole))
        self.starts = [
            self.add_weight(
                shape=(1, units), initializer=keras.initializers.RandomUniform(-1, 1), name=name
            )
            for units, name in zip(
                self.units, ("coordinate_start", "tensor_start", "global_start"), strict=True
            )
        ]
        # Columns: direction, learning rate, gamma, beta. The first learning rates are those drawn.
        self.readout_kernel = self.add_weight(
            shape=(coordinate, 4),
            initializer=lambda shape, dtype: tf.cast(
                _normal(coordinate)(shape) * [1.0, 0.0, 1.0, 1.0], dtype
            ),
            name="readout_kernel",
        )
        self.readout_bias = self._constants("readout_bias", 0.0, _SCALE_DECAY, _INPUT_DECAY)
        self.shortcut = self._constants("shortcut", *[1.0 / NUM_SCALES] * NUM_SCALES)
        self.rate_momentum = self._constants("rate_momentum", _RATE_MOMENTUM)
        self.step_offset = self._constants("step_offset", _OFFSET)
        self.built = True

    def initial_state(self, theta: Tensor) -> HierarchicalRNNState:
        """Returns the learned first states of the networks, empty means, and the drawn rates."""
        size, dtype = sum(self.sizes), self.compute_dtype
        bounds = [0.5 * math.log(self.low), 0.5 * math.log(self.high)]
        of_coordinates, of_tensors = (
            tf.random.stateless_uniform([count], [_SEED, stream], *bounds, dtype=dtype)
            for stream, count in enumerate((size, len(self.sizes)))
        )
        coordinates, tensors, whole = (
            tf.tile(tf.convert_to_tensor(start), [count, 1])
            for start, count in zip(self.starts, (size, len(self.sizes), 1), strict=True)
        )
        by_scale, by_coordinate = tf.zeros([size, NUM_SCALES], dtype), tf.zeros([size], dtype)
        log_rates = of_coordinates + self._spread(of_tensors[:, tf.newaxis])[:, 0]
        return HierarchicalRNNState(
            coordinates,
            tensors,
            whole,
            means=by_scale,
            squares=by_scale,
            input_decay=by_coordinate,
            scale_decay=by_coordinate,
            log_rates=log_rates,
        )

    def call(
        self, gradient: Tensor, loss: Tensor, theta: Tensor, state: HierarchicalRNNState
    ) -> tuple[Tensor, HierarchicalRNNState]:
        """Returns theta and the state after one update; the loss is not used."""
        del loss
        means, squares = updated_means(state, gradient)
        scaled = tf.asinh(means / tf.sqrt(squares + 1e-16))
        inputs = inputs_of(scaled, squares, state.log_rates)
        coordinates, tensors, whole = self._networks(inputs, state)
        read = tf.matmul(coordinates, self.readout_kernel)
        direction = read[:, 0] + tf.linalg.matvec(scaled, self.shortcut)
        direction /= self._spread(tf.sqrt(self._means(tf.square(direction)) + 1e-16))
        change, scale_decay, input_decay = tf.unstack(read[:, 1:] + self.readout_bias, axis=1)
        log_step = state.log_rates + change
        # The value is clipped, its derivative is not.
        clipped = tf.clip_by_value(log_step, -_LARGEST_LOG_RATE, self._limit)
        log_step += tf.stop_gradient(clipped - log_step)
        kept = tf.sigmoid(self.rate_momentum)
        return theta - tf.exp(log_step + self.step_offset) * direction, HierarchicalRNNState(
            coordinates,
            tensors,
            whole,
            means,
            squares,
            tf.sigmoid(input_decay),
            tf.sigmoid(scale_decay),
            kept * state.log_rates + (1.0 - kept) * log_step,
        )

    def trace(self, state: HierarchicalRNNState) -> dict[str, Tensor]:
        """Returns the learning rates, [P]."""
        return {"rates": tf.exp(state.log_rates)}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        names = ("coordinate_units", "tensor_units", "global_units")
        rates = {"low": self.low, "high": self.high, "largest_rate": self.largest_rate}
        own = dict(zip(names, self.units, strict=True))
        return {**super().get_config(), **own, **rates}

    def _networks(
        self, inputs: Tensor, state: HierarchicalRNNState
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the states of the three levels after one step of each."""
        outer = self.tensor_to_coordinate(state.tensors) + self.global_to_coordinate(state.whole)
        coordinates = self.coordinate_cell(inputs, state.coordinates, self._spread(outer))
        below = self._means(tf.concat([coordinates, inputs], axis=1))
        tensors = self.tensor_cell(below, state.tensors, self.global_to_tensor(state.whole))
        whole = self.global_cell(tf.reduce_mean(tensors, axis=0, keepdims=True), state.whole)
        return coordinates, tensors, whole

    def _means(self, values: Tensor) -> Tensor:
        """Returns the mean over the coordinates of each tensor, [P, ...] -> [n, ...]."""
        return tf.stack([tf.reduce_mean(part, axis=0) for part in tf.split(values, self.sizes)])

    def _spread(self, values: Tensor) -> Tensor:
        """Repeats the values of each tensor for its coordinates, [n, ...] -> [P, ...]."""
        parts = zip(tf.unstack(values), self.sizes, strict=True)
        return tf.concat([tf.broadcast_to(v, [size, *v.shape]) for v, size in parts], axis=0)

    def _constants(self, name: str, *values: float) -> Any:
        """Creates a weight that starts at these values; one value makes a scalar."""
        start = values[0] if len(values) == 1 else list(values)
        return self.add_weight(
            shape=() if len(values) == 1 else (len(values),),
            initializer=lambda shape, dtype: tf.constant(start, dtype, shape),
            name=name,
        )
