"""The second layer of the meta-learner LSTM: the gates, and the cell state that is theta.

Ravi & Larochelle, ICLR 2017, equation 2. For every coordinate, with shared weights:

    i_t = sigmoid(W_I . [h1_t, theta_{t-1}, i_{t-1}] + b_I)
    f_t = sigmoid(W_F . [h1_t, theta_{t-1}, f_{t-1}] + b_F)
    theta_t = f_t * theta_{t-1} - i_t * grad_t

    paper        code                shape
    theta        theta               [P]
    nabla L_t    gradient            [P]
    W_F, b_F     forget_kernel/bias  [H + 2, 1], []
    W_I, b_I     input_kernel/bias   [H + 2, 1], []
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.rules.base import Gates, cell_update

GATE_FEEDBACKS = ("value", "logit")

# "initialize the LSTM with small random weights", section 3.3.2 and the authors' code.
SMALL = 0.01
# Forget gates then start at 0.982 to 0.993, input gates (learning rates) at 0.0067 to 0.018.
FORGET_BIAS = (4.0, 5.0)
INPUT_BIAS = (-5.0, -4.0)


def gate_logit(
    hidden: Tensor, theta: Tensor, fed_back: Tensor, kernel: Tensor, bias: Tensor
) -> Tensor:
    """Returns W . [h1_t, theta_{t-1}, gate_{t-1}] + b for every coordinate, [P].

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
        forget_gate_bias: range of the initial b_F.
        input_gate_bias: range of the initial b_I.

    Call arguments:
        hidden: h1_t, [P, H].
        gradient: of the loss with respect to theta, without preprocessing, [P].
        theta: theta_{t-1}, [P].
        fed_back: the gates that the last update returned; zeros at first.
        multiplied: a function from gates to the gates that change theta; None changes nothing.
        added: what is added to the gates before the sigmoid, [P] each; None for nothing.

    Returns:
        theta_t [P] and the gates to feed back.
    """

    def __init__(
        self,
        hidden_units: int = 20,
        gate_feedback: str = "value",
        forget_gate_bias: tuple[float, ...] = FORGET_BIAS,
        input_gate_bias: tuple[float, ...] = INPUT_BIAS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if gate_feedback not in GATE_FEEDBACKS:
            raise ValueError(
                f"gate_feedback must be one of {', '.join(GATE_FEEDBACKS)}, got {gate_feedback!r}."
            )
        self.hidden_units = hidden_units
        self.gate_feedback = gate_feedback
        self.forget_gate_bias, self.input_gate_bias = forget_gate_bias, input_gate_bias

    def build(self, hidden_shape: Any = None) -> None:
        """Creates W_F, b_F, W_I, b_I; their shapes do not depend on P."""
        del hidden_shape
        small = keras.initializers.RandomUniform(-SMALL, SMALL)
        shape = (self.hidden_units + 2, 1)
        self.forget_kernel = self.add_weight(shape=shape, initializer=small, name="forget_kernel")
        high, low = (
            keras.initializers.RandomUniform(*bounds)
            for bounds in (self.forget_gate_bias, self.input_gate_bias)
        )
        self.forget_bias = self.add_weight(shape=(), initializer=high, name="forget_bias")
        self.input_kernel = self.add_weight(shape=shape, initializer=small, name="input_kernel")
        self.input_bias = self.add_weight(shape=(), initializer=low, name="input_bias")
        self.built = True

    def call(
        self,
        hidden: Tensor,
        gradient: Tensor,
        theta: Tensor,
        fed_back: tuple[Tensor, Tensor],
        multiplied: Callable[[Gates], Gates] | None = None,
        added: Gates | None = None,
    ) -> tuple[Tensor, Gates]:
        """Returns theta_t and the gates to feed back (equation 2)."""
        logits = Gates(
            forget=gate_logit(hidden, theta, fed_back[0], self.forget_kernel, self.forget_bias),
            input=gate_logit(hidden, theta, fed_back[1], self.input_kernel, self.input_bias),
        )
        if added is not None:
            logits = Gates(*map(tf.add, logits, added))
        values = Gates(*map(tf.sigmoid, logits))
        moving = values if multiplied is None else multiplied(values)
        theta = cell_update(moving, theta, gradient)
        return theta, values if self.gate_feedback == "value" else logits

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = {
            "hidden_units": self.hidden_units,
            "gate_feedback": self.gate_feedback,
            "forget_gate_bias": self.forget_gate_bias,
            "input_gate_bias": self.input_gate_bias,
        }
        return {**super().get_config(), **config}
