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

Without a first layer the gates see [pre(loss_t), pre(grad_t)] in the place of h1_t: the LSTM of
one layer whose cell is theta, "v1" in Hung-yi Lee's lecture on gradient descent as LSTM, which
calls the whole "v2".

The paper feeds the *values* of the gates back, its authors' code what they were
*before* the sigmoid: `gate_feedback="value"` or `"logit"`.
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
from tf_metalstm.rules.base import Gates, Rule, cell_update
from tf_metalstm.rules.preprocessing import LSTMOptions, preprocess

GATE_FEEDBACKS = ("value", "logit")
FIRST_LAYERS = ("lstm", "none")

# "initialize the LSTM with small random weights", section 3.3.2 and the authors' code.
_SMALL = 0.01
_NUM_INPUTS = 4  # magnitude and sign of the loss, and of the gradient
# Forget gates start at 0.982 to 0.993, input gates (learning rates) at 0.0067 to 0.018.
_FORGET_BIAS = (4.0, 5.0)
_INPUT_BIAS = (-5.0, -4.0)


@dataclass(frozen=True)
class MetaLSTMOptions(LSTMOptions):
    """Options of the meta-learner LSTM."""

    gate_feedback: str = option(
        "value",
        "Feed the gates back as values (the paper) or as logits (its authors' code).",
        choices=GATE_FEEDBACKS,
        alike=True,
    )
    first_layer: str = option(
        "lstm",
        "What the gates see: the output of an LSTM that remembers earlier gradients and losses, or "
        "the present gradient and loss alone (none).",
        choices=FIRST_LAYERS,
        alike=True,
        settled=True,
    )


class MetaLSTMState(NamedTuple):
    """What one episode carries from update to update; all zeros before the first.

    hidden: h1, output of the first layer, [P, H]; [P, 0] where there is none.
    cell: c1, cell state of the first layer, likewise.
    forget: the forget gate as it is fed back (value or logit), [P].
    input: the input gate as it is fed back (value or logit), [P].
    """

    hidden: Tensor
    cell: Tensor
    forget: Tensor
    input: Tensor


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
        first_layer: "lstm", or "none" for gates that see the present gradient and loss alone.
        name: fixed, and with it the names of the weights in a checkpoint.
    """

    part = Part("meta_lstm", "Meta-learner LSTM", "Ravi & Larochelle, ICLR 2017", MetaLSTMOptions)

    @classmethod
    def from_options(cls, options: MetaLSTMOptions) -> MetaLSTM:  # type: ignore[override]
        return cls(
            options.hidden_units,
            options.gate_feedback,
            options.preprocessing_scale,
            options.first_layer,
        )

    def __init__(
        self,
        hidden_units: int = 20,
        gate_feedback: str = "value",
        preprocessing_scale: float = 10.0,
        first_layer: str = "lstm",
        name: str = "meta_lstm",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        MetaLSTMOptions(
            hidden_units, preprocessing_scale, gate_feedback, first_layer
        )  # checks them
        self.hidden_units = hidden_units
        self.gate_feedback = gate_feedback
        self.preprocessing_scale = preprocessing_scale

        def small() -> Any:
            return keras.initializers.RandomUniform(-_SMALL, _SMALL)

        self.first_layer = None
        if first_layer == "lstm":
            self.first_layer = keras.layers.LSTMCell(
                hidden_units,
                kernel_initializer=small(),
                recurrent_initializer=small(),
                bias_initializer=small(),
                unit_forget_bias=False,
                dtype=self.dtype_policy,
                name="first_layer",
            )
        width = _NUM_INPUTS if self.first_layer is None else hidden_units
        self.second_layer = MetaLSTMCell(
            width, gate_feedback, dtype=self.dtype_policy, name="second_layer"
        )

    def build(self, blocks: Blocks = ()) -> None:
        """Builds the layers; nothing depends on theta."""
        del blocks
        if self.first_layer is not None:
            self.first_layer.build((None, _NUM_INPUTS))
        self.second_layer.build()
        self.built = True

    def initial_state(self, theta: Tensor) -> MetaLSTMState:
        """Returns zeros for h1, c1 and both gates."""
        dtype = self.compute_dtype
        units = 0 if self.first_layer is None else self.hidden_units
        by_unit = tf.zeros([tf.size(theta), units], dtype)
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
        seen = tf.stack(features, axis=1)
        hidden, cell = state.hidden, state.cell
        if self.first_layer is not None:
            seen, (hidden, cell) = self.first_layer(seen, (hidden, cell))
        theta, gates = self.second_layer(seen, gradient, theta, (state.forget, state.input))
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
            "first_layer": "none" if self.first_layer is None else "lstm",
        }
        return {**super().get_config(), **config}
