"""The meta-learner LSTM: an LSTM whose cell state is the parameter vector.

Ravi & Larochelle, "Optimization as a Model for Few-Shot Learning", ICLR 2017,
equation 2 and sections 3.1 to 3.3. For every coordinate, with shared weights:

    h1_t, c1_t = LSTM([pre(loss_t), pre(grad_t)], (h1_{t-1}, c1_{t-1}))
    i_t = sigmoid(W_I . [h1_t, theta_{t-1}, i_{t-1}] + b_I)
    f_t = sigmoid(W_F . [h1_t, theta_{t-1}, f_{t-1}] + b_F)
    theta_t = f_t * theta_{t-1} - i_t * grad_t

    pre(x) = (log|x| / p, sign(x))  where |x| >= exp(-p),  else (-1, exp(p) * x)

    paper        code                shape
    theta        theta               [P]
    nabla L_t    gradient            [P]
    L_t          loss                []
    W_F, b_F     forget_kernel/bias  [H + 2, 1], []
    W_I, b_I     input_kernel/bias   [H + 2, 1], []
    p            preprocessing_scale

The paper feeds the *values* of the gates back, its authors' code what they were
*before* the sigmoid: `gate_feedback="value"` or `"logit"`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import Options, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.rules.base import Gates, Rule, cell_update

GATE_FEEDBACKS = ("value", "logit")

# "initialize the LSTM with small random weights", section 3.3.2 and the authors' code.
_SMALL = 0.01
# Forget gates start at 0.982 to 0.993, input gates (learning rates) at 0.0067 to 0.018.
_FORGET_BIAS = (4.0, 5.0)
_INPUT_BIAS = (-5.0, -4.0)


@dataclass(frozen=True)
class MetaLSTMOptions(Options):
    """Options of the meta-learner LSTM."""

    hidden_units: int = option(
        20, "H, units of the meta-learner's first LSTM layer.", at_least=1, alike=True, settled=True
    )
    gate_feedback: str = option(
        "value",
        "Feed the gates back as values (the paper) or as logits (its authors' code).",
        choices=GATE_FEEDBACKS,
        alike=True,
    )
    preprocessing_scale: float = option(
        10.0, "p, the scale in the preprocessing of gradient and loss.", above=0, alike=True
    )


class MetaLSTMState(NamedTuple):
    """What one episode carries from update to update; all zeros before the first.

    hidden: h1, output of the first layer, [P, H].
    cell: c1, cell state of the first layer, [P, H].
    forget: the forget gate as it is fed back (value or logit), [P].
    input: the input gate as it is fed back (value or logit), [P].
    """

    hidden: Tensor
    cell: Tensor
    forget: Tensor
    input: Tensor


def preprocess(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Splits numbers of any magnitude into two of moderate size (section 3.2).

    Both branches of the paper's definition in one expression: below exp(-p) the
    logarithm is cut at -1 and the sign becomes exp(p) * x, which meets +-1 there.
    Written so, the derivative is finite everywhere, which second order needs.

    Args:
        x: losses or gradients, any shape.
        scale: p; the paper uses 10.

    Returns:
        Magnitude, at least -1, and sign in [-1, 1], each of the shape of x.
    """
    smallest = math.exp(-scale)
    magnitude = tf.math.log(tf.maximum(tf.abs(x), smallest)) / scale
    sign = tf.clip_by_value(x / smallest, -1.0, 1.0)
    return magnitude, sign


def gate_logit(
    hidden: Tensor, theta: Tensor, fed_back: Tensor, kernel: Tensor, bias: Tensor
) -> Tensor:
    """Returns W . [h1_t, theta_{t-1}, gate_{t-1}] + b of every coordinate, [P].

    Args:
        hidden: h1_t, [P, H].
        theta: theta_{t-1}, [P].
        fed_back: the gate of the last update, value or logit, [P].
        kernel: W, [H + 2, 1].
        bias: b, a scalar.
    """
    by_hidden, by_theta, by_gate = tf.split(tf.reshape(kernel, [-1]), [hidden.shape[-1], 1, 1])
    return tf.linalg.matvec(hidden, by_hidden) + by_theta * theta + by_gate * fed_back + bias


@keras.saving.register_keras_serializable("tf_metalstm")
class MetaLSTMCell(keras.layers.Layer):
    """The second layer: the gates, and the cell state that is theta.

    Args:
        hidden_units: H of the first layer.
        gate_feedback: "value" as in the paper, "logit" as in its authors' code.

    Call arguments:
        hidden: h1_t, [P, H].
        gradient: of the loss with respect to theta, as it is, [P].
        theta: theta_{t-1}, [P].
        fed_back: the gates that the last update returned; zeros at first.

    Returns:
        theta_t [P] and the gates to feed back.
    """

    def __init__(self, hidden_units: int = 20, gate_feedback: str = "value", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if gate_feedback not in GATE_FEEDBACKS:
            raise ValueError(
                f"gate_feedback must be one of {', '.join(GATE_FEEDBACKS)}, got {gate_feedback!r}."
            )
        self.hidden_units = hidden_units
        self.gate_feedback = gate_feedback

    def build(self, hidden_shape: Any = None) -> None:
        """Creates W_F, b_F, W_I, b_I; their shapes do not depend on P."""
        del hidden_shape
        small = keras.initializers.RandomUniform(-_SMALL, _SMALL)
        shape = (self.hidden_units + 2, 1)
        self.forget_kernel = self.add_weight(shape=shape, initializer=small, name="forget_kernel")
        high, low = (
            keras.initializers.RandomUniform(*bounds) for bounds in (_FORGET_BIAS, _INPUT_BIAS)
        )
        self.forget_bias = self.add_weight(shape=(), initializer=high, name="forget_bias")
        self.input_kernel = self.add_weight(shape=shape, initializer=small, name="input_kernel")
        self.input_bias = self.add_weight(shape=(), initializer=low, name="input_bias")
        self.built = True

    def call(
        self, hidden: Tensor, gradient: Tensor, theta: Tensor, fed_back: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Gates]:
        """Returns theta_t and the gates to feed back (equation 2)."""
        logits = Gates(
            forget=gate_logit(hidden, theta, fed_back[0], self.forget_kernel, self.forget_bias),
            input=gate_logit(hidden, theta, fed_back[1], self.input_kernel, self.input_bias),
        )
        values = Gates(*map(tf.sigmoid, logits))
        theta = cell_update(values, theta, gradient)
        return theta, values if self.gate_feedback == "value" else logits

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = {"hidden_units": self.hidden_units, "gate_feedback": self.gate_feedback}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("tf_metalstm")
class MetaLSTM(Rule):
    """The meta-learner LSTM: an LSTM over losses and gradients, then `MetaLSTMCell`.

    All coordinates share the weights, 2,046 at H = 20; each has a state of its own.
    Permuting coordinates permutes the result and does nothing else.

    Args:
        hidden_units: H, units of the first layer.
        gate_feedback: "value" as in the paper, "logit" as in its authors' code.
        preprocessing_scale: p of the preprocessing.
        name: fixed, and with it the names of the weights in a checkpoint.
    """

    part = Part("meta_lstm", "Meta-learner LSTM", "Ravi & Larochelle, ICLR 2017", MetaLSTMOptions)

    @classmethod
    def from_options(cls, options: MetaLSTMOptions) -> MetaLSTM:  # type: ignore[override]
        return cls(options.hidden_units, options.gate_feedback, options.preprocessing_scale)

    def __init__(
        self,
        hidden_units: int = 20,
        gate_feedback: str = "value",
        preprocessing_scale: float = 10.0,
        name: str = "meta_lstm",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        MetaLSTMOptions(hidden_units, gate_feedback, preprocessing_scale)  # checks them
        self.hidden_units = hidden_units
        self.gate_feedback = gate_feedback
        self.preprocessing_scale = preprocessing_scale

        def small() -> Any:
            return keras.initializers.RandomUniform(-_SMALL, _SMALL)

        self.first_layer = keras.layers.LSTMCell(
            hidden_units,
            kernel_initializer=small(),
            recurrent_initializer=small(),
            bias_initializer=small(),
            unit_forget_bias=False,
            dtype=self.dtype_policy,
            name="first_layer",
        )
        self.second_layer = MetaLSTMCell(
            hidden_units, gate_feedback, dtype=self.dtype_policy, name="second_layer"
        )

    def build(self, blocks: Blocks = ()) -> None:
        """Builds both layers; nothing depends on theta."""
        del blocks
        self.first_layer.build((None, 4))
        self.second_layer.build()
        self.built = True

    def initial_state(self, theta: Tensor) -> MetaLSTMState:
        """Returns zeros for h1, c1 and both gates."""
        dtype = self.compute_dtype
        by_unit = tf.zeros([tf.size(theta), self.hidden_units], dtype)
        by_coordinate = tf.zeros([tf.size(theta)], dtype)
        return MetaLSTMState(by_unit, by_unit, by_coordinate, by_coordinate)

    def call(
        self, gradient: Tensor, loss: Tensor, theta: Tensor, state: MetaLSTMState
    ) -> tuple[Tensor, MetaLSTMState]:
        """Returns theta_t and what the next update needs of this one."""
        features = [
            *(tf.fill(tf.shape(gradient), x) for x in preprocess(loss, self.preprocessing_scale)),
            *preprocess(gradient, self.preprocessing_scale),
        ]
        hidden, (_, cell) = self.first_layer(tf.stack(features, axis=1), (state.hidden, state.cell))
        theta, gates = self.second_layer(hidden, gradient, theta, (state.forget, state.input))
        return theta, MetaLSTMState(hidden, cell, *gates)

    def trace(self, state: MetaLSTMState) -> dict[str, Tensor]:
        """Returns the gate values of the last update, whichever way they are fed back."""
        gates = Gates(state.forget, state.input)
        if self.gate_feedback == "logit":
            gates = Gates(*map(tf.sigmoid, gates))
        return gates.trace()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = {
            "hidden_units": self.hidden_units,
            "gate_feedback": self.gate_feedback,
            "preprocessing_scale": self.preprocessing_scale,
        }
        return {**super().get_config(), **config}
