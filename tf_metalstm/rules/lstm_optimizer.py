"""The LSTM optimizer: a two-layer LSTM whose output is the step of each coordinate.

Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NIPS 2016,
equation 2, section 2.1 and appendix A. For every coordinate, with shared weights:

    x_t = inputs of grad_t
    h1_t, c1_t = LSTM_1(x_t,  (h1_{t-1}, c1_{t-1}))
    h2_t, c2_t = LSTM_2(h1_t, (h2_{t-1}, c2_{t-1}))
    g_t = s * (w . h2_t + b)
    theta_t = theta_{t-1} + g_t

The inputs, by `--rule_inputs`:

    log_and_sign   pre(grad_t), see `preprocessing`; the paper uses it for networks
    gradient       a * grad_t; the paper uses it for quadratics
    normalized     grad_t / sqrt(v_t) and m_t / sqrt(v_t), with means of gradients and squares:
                   m_t = d m_{t-1} + (1 - d) grad_t      both divided by 1 - d^t,
                   v_t = d v_{t-1} + (1 - d) grad_t^2    d = 0.95

The last ones are the inputs of RNNprop (Lv, Jiang & Li, "Learning gradient descent: better
generalization and longer horizons", ICML 2017, section 4). Then there is a layer of H ELU units
before the LSTM, and the output is bounded: g_t = s * tanh(w . h2_t + b).

    means          a * grad_t and a * m_t for four decays d: 0.5, 0.9, 0.97, 0.99
                   m_t = d m_{t-1} + sqrt(1 - d) grad_t

The last ones are our own, after the momenta that Wichrowska et al. (ICML 2017) give to their rule:
a long memory need not be learned. The step reads them directly too, g_t = s * (w . h2_t + v . x_t +
b), where v begins at zeros: with constant h2 the rule is gradient descent with several momenta.

    paper        code            shape
    theta        theta           [P]
    nabla f_t    gradient        [P]
    g_t          step            [P]
    h, c         state.layers    [P, H] each, of both layers
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.rules.base import Rule
from tf_metalstm.rules.preprocessing import LSTMOptions, preprocess

RULE_INPUTS = ("log_and_sign", "gradient", "normalized", "means")

_DECAY = 0.95  # d
_EPSILON = 1e-8  # added to sqrt(v)
_DECAYS = (0.5, 0.9, 0.97, 0.99)  # d of the inputs "means"


@dataclass(frozen=True)
class LSTMOptimizerOptions(LSTMOptions):
    """Options of the LSTM optimizer."""

    rule_inputs: str = option(
        "log_and_sign",
        "Inputs of the LSTM: logarithm and sign of the gradient, the gradient itself, the gradient "
        "and its mean, each divided by the root of the mean square (RNNprop), or the gradient and "
        "its means over 2, 10, 33 and 100 updates.",
        choices=RULE_INPUTS,
        alike=True,
        settled=True,
    )
    input_scale: float = option(
        0.1,
        "a, the factor on the gradient, if the rule reads the gradient itself.",
        above=0,
        alike=True,
        only_with={"rule_inputs": ("gradient", "means")},
    )
    output_scale: float = option(
        0.1, "s, the factor on the output, which is then added to theta.", above=0, alike=True
    )


class Moments(NamedTuple):
    """Running means; all zeros before the first update.

    mean: mean of the gradients, [P].
    square: mean of their squares, [P].
    weight: 1 - d^t, the sum of the weights in both means, a scalar.
    """

    mean: Tensor
    square: Tensor
    weight: Tensor


class LSTMOptimizerState(NamedTuple):
    """What one problem carries from update to update; all zeros before the first.

    layers: hidden and cell state of both layers, [P, H] each.
    moments: means of earlier gradients, for the inputs "normalized"; those of four decays, [P, 4],
        for "means"; else ().
    """

    layers: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    moments: Moments | Tensor | tuple[()]


def updated_moments(moments: Moments, gradient: Tensor) -> Moments:
    """Returns the running means after one more gradient [P]."""
    return Moments(
        _DECAY * moments.mean + (1.0 - _DECAY) * gradient,
        _DECAY * moments.square + (1.0 - _DECAY) * tf.square(gradient),
        _DECAY * moments.weight + (1.0 - _DECAY),
    )


def normalized_inputs(moments: Moments, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Returns grad_t / sqrt(v_t) and m_t / sqrt(v_t), [P] each; v_t includes grad_t."""
    square = moments.square / moments.weight
    # If all gradients were zero, the root has no derivative; the inputs are zero then.
    seen = square > 0.0
    deviation = tf.sqrt(tf.where(seen, square, tf.ones_like(square))) + _EPSILON
    return gradient / deviation, moments.mean / moments.weight / deviation


@keras.saving.register_keras_serializable("tf_metalstm")
class LSTMOptimizer(Rule):
    """A two-layer LSTM over gradients, whose output is added to theta.

    All coordinates share the weights, 5,301 at H = 20 with two inputs; each has a state of its own.
    Permuting the coordinates permutes the result. The loss is not used.

    Args:
        hidden_units: H, units of each layer.
        preprocessing_scale: p of the inputs "log_and_sign".
        rule_inputs: "log_and_sign", "gradient", "normalized" or "means", see above.
        input_scale: a of the inputs "gradient" and "means".
        output_scale: s.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part(
        "lstm_optimizer", "LSTM optimizer", "Andrychowicz et al., NIPS 2016", LSTMOptimizerOptions
    )
    uses_loss = False

    @classmethod
    def from_options(cls, options: LSTMOptimizerOptions) -> LSTMOptimizer:  # type: ignore[override]
        return cls(
            options.hidden_units,
            options.preprocessing_scale,
            options.rule_inputs,
            options.input_scale,
            options.output_scale,
        )

    def __init__(
        self,
        hidden_units: int = 20,
        preprocessing_scale: float = 10.0,
        rule_inputs: str = "log_and_sign",
        input_scale: float = 0.1,
        output_scale: float = 0.1,
        name: str = "lstm_optimizer",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        LSTMOptimizerOptions(  # checks them
            hidden_units, preprocessing_scale, rule_inputs, input_scale, output_scale
        )
        self.hidden_units = hidden_units
        self.preprocessing_scale = preprocessing_scale
        self.rule_inputs = rule_inputs
        self.input_scale = input_scale
        self.output_scale = output_scale
        self.is_normalized = rule_inputs == "normalized"
        dtype = self.dtype_policy
        self.embedding = None
        if self.is_normalized:
            self.embedding = keras.layers.Dense(hidden_units, "elu", dtype=dtype, name="embedding")
        self.first_layer = keras.layers.LSTMCell(hidden_units, dtype=dtype, name="first_layer")
        self.second_layer = keras.layers.LSTMCell(hidden_units, dtype=dtype, name="second_layer")
        self.output_layer = keras.layers.Dense(1, dtype=dtype, name="output_layer")
        self.direct_layer = None
        if rule_inputs == "means":
            self.direct_layer = keras.layers.Dense(
                1, use_bias=False, kernel_initializer="zeros", dtype=dtype, name="direct_layer"
            )

    def build(self, blocks: Blocks = ()) -> None:
        """Builds the layers; they do not depend on theta."""
        del blocks
        num_inputs = {"gradient": 1, "means": 1 + len(_DECAYS)}.get(self.rule_inputs, 2)
        if self.direct_layer is not None:
            self.direct_layer.build((None, num_inputs))
        if self.embedding is not None:
            self.embedding.build((None, num_inputs))
            num_inputs = self.hidden_units
        self.first_layer.build((None, num_inputs))
        self.second_layer.build((None, self.hidden_units))
        self.output_layer.build((None, self.hidden_units))
        self.built = True

    def initial_state(self, theta: Tensor) -> LSTMOptimizerState:
        """Returns the state before the first update: zeros."""
        dtype = self.compute_dtype
        by_unit = tf.zeros([tf.size(theta), self.hidden_units], dtype)
        layers = ((by_unit, by_unit), (by_unit, by_unit))
        if self.direct_layer is not None:
            means = tf.zeros([tf.size(theta), len(_DECAYS)], dtype)
            return LSTMOptimizerState(layers, means)
        if not self.is_normalized:
            return LSTMOptimizerState(layers, ())
        by_coordinate = tf.zeros([tf.size(theta)], dtype)
        moments = Moments(by_coordinate, by_coordinate, tf.zeros([], dtype))
        return LSTMOptimizerState(layers, moments)

    def call(
        self, gradient: Tensor, loss: Tensor, theta: Tensor, state: LSTMOptimizerState
    ) -> tuple[Tensor, LSTMOptimizerState]:
        """Returns theta + step, and the state for the next update."""
        del loss
        features, moments = self._inputs(gradient, state.moments)
        inputs = hidden = tf.stack(features, axis=1)
        if self.embedding is not None:
            hidden = self.embedding(hidden)
        layers = []
        for layer, before in zip((self.first_layer, self.second_layer), state.layers, strict=True):
            hidden, after = layer(hidden, before)
            layers.append(tuple(after))
        output = self.output_layer(hidden)
        if self.direct_layer is not None:
            output += self.direct_layer(inputs)
        output = tf.squeeze(output, axis=1)
        step = self.output_scale * (tf.tanh(output) if self.is_normalized else output)
        return theta + step, LSTMOptimizerState((layers[0], layers[1]), moments)

    def _inputs(
        self, gradient: Tensor, moments: Moments | Tensor | tuple[()]
    ) -> tuple[tuple[Tensor, ...], Moments | Tensor | tuple[()]]:
        """Returns the inputs of every coordinate, [P] each, and the moments after this gradient."""
        if isinstance(moments, Moments):
            moments = updated_moments(moments, gradient)
            return normalized_inputs(moments, gradient), moments
        if self.rule_inputs == "means":
            decays = tf.constant(_DECAYS, gradient.dtype)
            means = decays * moments + tf.sqrt(1.0 - decays) * gradient[:, tf.newaxis]
            read = tf.concat([gradient[:, tf.newaxis], means], axis=1)
            return tuple(tf.unstack(self.input_scale * read, axis=1)), means
        if self.rule_inputs == "gradient":
            return (self.input_scale * gradient,), ()
        return preprocess(gradient, self.preprocessing_scale), ()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = {
            "hidden_units": self.hidden_units,
            "preprocessing_scale": self.preprocessing_scale,
            "rule_inputs": self.rule_inputs,
            "input_scale": self.input_scale,
            "output_scale": self.output_scale,
        }
        return {**super().get_config(), **config}
