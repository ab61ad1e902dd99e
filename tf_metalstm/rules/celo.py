"""Celo: a small network gives the step of a coordinate, and an LSTM the learning rate.

Moudgil et al., "Celo: Training versatile learned optimizers on a compute diet", TMLR 2025. The
gradient g is clipped at +-1000. Each tensor keeps three momenta m of it (decays 0.9, 0.99, 0.999),
the mean square s (decay 0.999), and r and c: means of g^2 along its two largest axes (decays 0.9,
0.99, 0.999). A tensor with one axis or none has v, the mean square with the same decays, instead of
r and c. The network reads 30 numbers for each coordinate. Each is divided by the root of 1e-5 plus
its mean square over the tensor:

    g, clip(g, 0.1), p                         p: the parameter
    m, s, m / sqrt(s + 1e-6), 1 / sqrt(s + 1e-6)
    g q, g / sqrt(s + 1e-6)                    q = rsqrt(r / ^r) rsqrt(c); or rsqrt(v)
    r, c, 1 / sqrt(r + 1e-8), 1 / sqrt(c + 1e-8)
    m q

    o = W_3 relu(W_2 relu(W_1 inputs))
    p <- p - lr 1e-3 o_0 exp(1e-3 o_1) RMS(p)

The learning rate comes from an LSTM over the run. Its first nine inputs say how much of the T steps
is over: tanh(10 (t / T - tau)) for nine values of tau. The other nine are features of the loss.
There are ten running means L_i of the loss, with half-lives from 10 to T. min L_i is the minimum of
a mean so far. Feature i is (L_i - min L_i) / (L_{i+1} - min L_i) - 1, clipped at +-1.

    lr = 0.1 exp(w . LSTM(W_a x + relu(W_b x)) + b)

The authors run this LSTM for every tensor and take the maximum of relu(W_b x) over tensors. Its
inputs and its first state are the same for all tensors, so one row is enough. Their file has two
more layers, whose outputs are never used.

    paper, code of the authors    code             shape
    MLP (ff_mod_stack)            network          30 -> 4 -> 4 -> 2
    scheduler (rnn_params)        mix, read, lstm, rate   18 -> 64 -> 1
    T                             num_steps
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.files import given_path
from tf_metalstm.options import OptionError, Options, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.rules.base import Rule

_DECAYS = (0.9, 0.99, 0.999)
_SQUARE_DECAY = 0.999
_FRACTIONS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
_NUM_MEANS = 10
_NUM_INPUTS, _UNITS, _LSTM_UNITS = 30, 4, 64
_NUM_FEATURES = len(_FRACTIONS) + _NUM_MEANS - 1
_LARGEST_GRADIENT = 1000.0
_NO_MINIMUM = 999999999999.0
_SCALE = 1e-3


@dataclass(frozen=True)
class CeloOptions(Options):
    """Options of Celo."""

    celo_weights: str | None = option(
        None,
        "File theta.state with the published weights; default: random weights.",
        is_path=True,
        training_only=True,
    )
    celo_steps: int = option(
        1000, "T, the number of steps that the learning rate is planned for.", at_least=10
    )


class CeloState(NamedTuple):
    """What one problem carries from update to update.

    step: updates so far, a scalar.
    loss_means: running means of the loss, without bias correction, [10].
    loss_minima: the minimum of each mean with bias correction, [10].
    hidden, cell: of the LSTM, [1, 64].
    momenta: m, [P, 3].
    squares: s, [P].
    tensors: for each tensor r and c, with its shape without one axis, and [3]; or v, [size, 3].
    """

    step: Tensor
    loss_means: Tensor
    loss_minima: Tensor
    hidden: Tensor
    cell: Tensor
    momenta: Tensor
    squares: Tensor
    tensors: tuple[tuple[Tensor, ...], ...]


class Factored(NamedTuple):
    """Features of the squared gradients of a tensor with n coordinates, [n, 3] each.

    rows, columns: the means, for each coordinate; both are v for a tensor with one axis.
    of_gradient, of_momenta: the factor q for g and for m; they differ in the small number that
        keeps the roots from 0.
    """

    rows: Tensor
    columns: Tensor
    of_gradient: Tensor
    of_momenta: Tensor


def largest_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Returns the second largest axis and the largest; None where there are no two."""
    if len(shape) < 2:
        return None
    order = np.argsort(shape, kind="stable")
    return int(order[-2]), int(order[-1])


def factored_means(
    gradient: Tensor, means: tuple[Tensor, ...], shape: tuple[int, ...]
) -> tuple[Factored, tuple[Tensor, ...]]:
    """Returns the features of the squared gradients, and the means after this gradient.

    Args:
        gradient: of the tensor, [n].
        means: r and c, or v.
        shape: of the tensor.
    """
    decays = tf.constant(_DECAYS, gradient.dtype)
    axes = largest_axes(shape)
    if axes is None:
        squares = (tf.square(gradient) + 1e-30)[:, tf.newaxis]
        [after] = [decays * mean + (1.0 - decays) * squares for mean in means]
        of_gradient = tf.math.rsqrt(tf.maximum(after + 1e-9, 1e-9))
        return Factored(after, after, of_gradient, tf.math.rsqrt(after)), (after,)
    second, largest = axes
    squares = tf.square(tf.reshape(gradient, shape)) + 1e-30
    # Along the largest axis for the rows, along the other one for the columns.
    rows, columns = (
        decays * mean + (1.0 - decays) * tf.reduce_mean(squares, axis)[..., tf.newaxis]
        for mean, axis in zip(means, (largest, second), strict=True)
    )
    of_rows = tf.reduce_mean(rows, second - (second > largest), keepdims=True)
    row_factor = tf.math.rsqrt(tf.maximum(rows / (of_rows + 1e-9), 1e-9))
    column_factor = tf.math.rsqrt(tf.maximum(columns, 1e-9))

    def spread(values: Tensor, axis: int) -> Tensor:
        whole = tf.broadcast_to(tf.expand_dims(values, axis), [*shape, len(_DECAYS)])
        return tf.reshape(whole, [-1, len(_DECAYS)])

    factor = spread(row_factor, largest) * spread(column_factor, second)
    features = Factored(spread(rows, largest), spread(columns, second), factor, factor)
    return features, (rows, columns)


def inputs_of(
    gradient: Tensor, theta: Tensor, momenta: Tensor, squares: Tensor, factored: Factored
) -> Tensor:
    """Returns the inputs of the network for each coordinate of one tensor, [n, 30].

    Args:
        gradient: g, [n].
        theta: p, [n].
        momenta: m, [n, 3].
        squares: s, [n].
        factored: features of the squared gradients.
    """
    g, root = gradient[:, tf.newaxis], tf.math.rsqrt(squares + 1e-6)[:, tf.newaxis]
    inputs = tf.concat(
        [
            g,
            tf.clip_by_value(g, -0.1, 0.1),
            theta[:, tf.newaxis],
            momenta,
            squares[:, tf.newaxis],
            momenta * root,
            root,
            g * factored.of_gradient,
            g * root,
            factored.rows,
            factored.columns,
            tf.math.rsqrt(factored.rows + 1e-8),
            tf.math.rsqrt(factored.columns + 1e-8),
            momenta * factored.of_momenta,
        ],
        axis=1,
    )
    return inputs * tf.math.rsqrt(1e-5 + tf.reduce_mean(tf.square(inputs), axis=0, keepdims=True))


@keras.saving.register_keras_serializable("tf_metalstm")
class Celo(Rule):
    """Celo, for runs whose length is known in advance.

    The package does not contain the published weights. An optimizer with them is

        LearnedOptimizer(Celo.load("theta.state", num_steps=5000), trained_steps=5000)

    Args:
        num_steps: T, the length of the run.
        published: weights to start from, from `celo_weights.read_published`; None means random
            weights.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part("celo", "Celo", "Moudgil et al., TMLR 2025", CeloOptions)
    treats_coordinates_alike = False
    takes_rows = False

    @classmethod
    def from_options(cls, options: CeloOptions) -> Celo:  # type: ignore[override]
        published = None if options.celo_weights is None else _read(options.celo_weights)
        return cls(options.celo_steps, published)

    @classmethod
    def load(cls, path: str | Path, num_steps: int) -> Celo:
        """Returns the rule with the published weights; it is not built for a theta yet.

        Args:
            path: path of the file `theta.state`.
            num_steps: T, the length of the run.

        Raises:
            OptionError: the file does not have the weights of Celo.
            ImportError: the extra celo is not installed.
        """
        rule = cls(num_steps, _read(path))
        rule.build(())
        return rule

    def __init__(
        self,
        num_steps: int = 1000,
        published: Sequence[np.ndarray] | None = None,
        name: str = "celo",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        CeloOptions(celo_steps=num_steps)  # checks it
        self.num_steps = num_steps
        self._published = published

        def dense(units: int, name: str, activation: str | None = None) -> keras.layers.Dense:
            initial = keras.initializers.VarianceScaling(1.0, "fan_in")
            return keras.layers.Dense(
                units, activation, kernel_initializer=initial, dtype=self.dtype_policy, name=name
            )

        self.network = [
            dense(_UNITS, "hidden_1", "relu"),
            dense(_UNITS, "hidden_2", "relu"),
            dense(2, "output"),
        ]
        self.mix, self.read = dense(_LSTM_UNITS, "mix", "relu"), dense(_LSTM_UNITS, "read")
        self.lstm = keras.layers.LSTMCell(_LSTM_UNITS, dtype=self.dtype_policy, name="lstm")
        self.rate = dense(1, "rate")

    def build(self, blocks: Blocks) -> None:
        """Creates the weights and stores the shapes of the tensors."""
        self.shapes = [block.shape for block in blocks]
        self.sizes = [block.size for block in blocks]
        inputs = (_NUM_INPUTS, _UNITS, _UNITS)
        for layer, size in zip(self.network, inputs, strict=True):
            layer.build((None, size))
        for layer, size in ((self.mix, _NUM_FEATURES), (self.read, _NUM_FEATURES)):
            layer.build((None, size))
        self.lstm.build((None, _LSTM_UNITS))
        self.rate.build((None, _LSTM_UNITS))
        self.first_hidden, self.first_cell = (
            self.add_weight(shape=(1, _LSTM_UNITS), initializer="zeros", name=name)
            for name in ("first_hidden", "first_cell")
        )
        if self._published is not None:
            layers = (*self.network, self.mix, self.read, self.lstm, self.rate)
            weights = [weight for layer in layers for weight in layer.weights]
            weights += [self.first_hidden, self.first_cell]
            for weight, value in zip(weights, self._published, strict=True):
                weight.assign(value)
        self.built = True

    def initial_state(self, theta: Tensor) -> CeloState:
        """Returns empty means of gradients and losses, and the learned state of the LSTM."""
        dtype = self.compute_dtype
        no_means, size = tf.zeros([_NUM_MEANS], dtype), tf.size(theta)
        return CeloState(
            tf.zeros([], dtype),
            no_means,
            no_means + _NO_MINIMUM,
            tf.convert_to_tensor(self.first_hidden),
            tf.convert_to_tensor(self.first_cell),
            tf.zeros([size, len(_DECAYS)], dtype),
            tf.zeros([size], dtype),
            tuple(_no_means(shape, dtype) for shape in self.shapes),
        )

    def call(
        self, gradient: Tensor, loss: Tensor, theta: Tensor, state: CeloState
    ) -> tuple[Tensor, CeloState]:
        """Returns theta and the state after one update."""
        means, minima, of_loss = self._loss_features(loss, state)
        fractions = tf.constant(_FRACTIONS, theta.dtype)
        over = tf.tanh((state.step / self.num_steps - fractions) * 10.0)
        features = tf.concat([over, of_loss], axis=0)[tf.newaxis]
        read = self.read(features) + self.mix(features)
        output, (hidden, cell) = self.lstm(read, (state.hidden, state.cell))
        rate = 0.1 * tf.exp(self.rate(output)[0, 0])
        gradient = tf.clip_by_value(gradient, -_LARGEST_GRADIENT, _LARGEST_GRADIENT)
        decays = tf.constant(_DECAYS, theta.dtype)
        momenta = decays * state.momenta + (1.0 - decays) * gradient[:, tf.newaxis]
        squares = _SQUARE_DECAY * state.squares + (1.0 - _SQUARE_DECAY) * tf.square(gradient)
        steps, tensors = [], []
        parts = [tf.split(each, self.sizes) for each in (gradient, theta, momenta, squares)]
        for g, p, m, s, before, shape in zip(*parts, state.tensors, self.shapes, strict=True):
            factored, after = factored_means(g, before, shape)
            steps.append(self._step(inputs_of(g, p, m, s, factored), p))
            tensors.append(after)
        moved = theta - rate * tf.concat(steps, axis=0)
        now = state.step + 1.0
        new = CeloState(now, means, minima, hidden, cell, momenta, squares, tuple(tensors))
        return moved, new

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, without the weights: a checkpoint has those."""
        return {**super().get_config(), "num_steps": self.num_steps}

    def _step(self, inputs: Tensor, theta: Tensor) -> Tensor:
        """Returns the step of one tensor for a learning rate of 1, [n]."""
        for layer in self.network:
            inputs = layer(inputs)
        direction, magnitude = tf.unstack(inputs, axis=1)
        length = tf.sqrt(tf.reduce_mean(tf.square(theta)) + 1e-9)
        return _SCALE * direction * tf.exp(_SCALE * magnitude) * length

    def _loss_features(self, loss: Tensor, state: CeloState) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the running means of the loss, their minima, and the nine features."""
        dtype = state.loss_means.dtype
        half_lives = np.logspace(1.0, math.log10(self.num_steps), _NUM_MEANS)
        decays = tf.constant(np.exp(-1.0 / half_lives), dtype)
        weight = 1.0 - tf.pow(decays, state.step + 1.0)  # sum of the weights in the means
        largest = tf.where(state.step == 0.0, loss, tf.reduce_max(state.loss_means / weight))
        cut = tf.minimum(2.0 * tf.abs(largest), loss)
        means = decays * state.loss_means + (1.0 - decays) * cut
        corrected = means / weight
        minima = tf.minimum(state.loss_minima, corrected)
        above = tf.maximum(corrected[1:] - minima[:-1], 1e-8)
        features = tf.clip_by_value((corrected[:-1] - minima[:-1]) / above - 1.0, -1.0, 1.0)
        return means, minima, tf.where(state.step < 2.0, tf.zeros_like(features), features)


def _read(path: str | Path) -> list[np.ndarray]:
    """Returns the weights of the authors' file in the order in which `Celo` creates its layers.

    Raises:
        OptionError: the file does not have the weights of Celo.
        ImportError: the extra celo is not installed.
    """
    try:
        from tf_metalstm.rules.celo_weights import read_published
    except ImportError as error:
        raise ImportError(
            "The published weights of Celo need msgpack: pip install 'tf_metalstm[celo]'."
        ) from error
    try:
        return read_published(given_path(path, "celo_weights"))
    except ValueError as error:
        raise OptionError("celo_weights", f"cannot be used: {error}") from error


def _no_means(shape: tuple[int, ...], dtype: str) -> tuple[Tensor, ...]:
    """Returns r and c, or v, of a tensor before the first update."""
    axes = largest_axes(shape)
    if axes is None:
        return (tf.zeros([math.prod(shape), len(_DECAYS)], dtype),)
    second, largest = axes
    return tuple(
        tf.zeros([*(n for axis, n in enumerate(shape) if axis != left_out), len(_DECAYS)], dtype)
        for left_out in (largest, second)
    )
