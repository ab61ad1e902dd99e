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

With `gate_places` the gates depend on the tensor and on the number of the update, see
`rules/gate_places.py`.

Without a first layer the gates see [pre(loss_t), pre(grad_t)] instead of h1_t. This is an LSTM of
one layer whose cell is theta. Hung-yi Lee's lecture on gradient descent as LSTM calls it "v1", and
the LSTM of two layers "v2".

The paper feeds back the *values* of the gates (`gate_feedback="value"`). Its authors' code feeds
back the numbers *before* the sigmoid (`gate_feedback="logit"`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.options import check_bounds, option
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part
from tf_metalstm.rules.base import Gates, Rule
from tf_metalstm.rules.gate_places import GateMultipliers, PlaceVectors, TensorGates
from tf_metalstm.rules.meta_lstm_cell import (
    FORGET_BIAS,
    GATE_FEEDBACKS,
    INPUT_BIAS,
    SMALL,
    MetaLSTMCell,
)
from tf_metalstm.rules.preprocessing import LSTMOptions, preprocess

FIRST_LAYERS = ("lstm", "none")
GATE_PLACES = ("none", "multipliers", "inputs", "tensors")

_NUM_INPUTS = 4  # magnitude and sign of the loss, and of the gradient


@dataclass(frozen=True)
class MetaLSTMOptions(LSTMOptions):
    """Options of the meta-learner LSTM."""

    forget_gate_bias: tuple[float, ...] = option(
        FORGET_BIAS,
        "Range of the initial bias of the forget gate: LOW,HIGH. With 8,9 the first updates "
        "leave theta as it is.",
        training_only=True,
    )
    input_gate_bias: tuple[float, ...] = option(
        INPUT_BIAS,
        "Range of the initial bias of the input gate: LOW,HIGH. With -9,-8 the first updates "
        "hardly follow the gradient.",
        training_only=True,
    )
    gate_places: str = option(
        "none",
        "Whether the gates depend on the tensor and the number of the update: no (none), by "
        "learned multipliers of both gates, by learned vectors as further inputs (inputs), or by a "
        "recurrent network that sees each tensor as a whole (tensors).",
        choices=GATE_PLACES,
        alike=True,
        settled=True,
    )
    gate_updates: int = option(
        5,
        "Number of updates with their own multipliers or vectors; later updates use the last ones.",
        at_least=1,
        alike=True,
        settled=True,
        only_with={"gate_places": ("multipliers", "inputs")},
    )
    place_units: int = option(
        4,
        "Length of the learned vector of a tensor, and of an update.",
        at_least=1,
        alike=True,
        settled=True,
        only_with={"gate_places": "inputs"},
    )
    gate_units: int = option(
        8,
        "Units of the recurrent network of a tensor.",
        at_least=1,
        alike=True,
        settled=True,
        only_with={"gate_places": "tensors"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds("forget_gate_bias", self.forget_gate_bias)
        check_bounds("input_gate_bias", self.input_gate_bias)

    gate_feedback: str = option(
        "value",
        "Feed the gates back as values (the paper) or as logits (its authors' code).",
        choices=GATE_FEEDBACKS,
        alike=True,
    )
    first_layer: str = option(
        "lstm",
        "What the gates see: the output of an LSTM over all gradients and losses so far (lstm), or "
        "only the present gradient and loss (none).",
        choices=FIRST_LAYERS,
        alike=True,
        settled=True,
    )


class MetaLSTMState(NamedTuple):
    """The state within an episode; all zeros before the first update.

    hidden: h1, output of the first layer, [P, H]; [P, 0] without a first layer.
    cell: c1, cell state of the first layer, of the same shape.
    forget: the forget gate as it is fed back (value or logit), [P].
    input: the input gate as it is fed back (value or logit), [P]. Both gates are fed back without
        the multipliers of `gate_places`.
    updates: number of updates so far, a scalar.
    tensors: H of each tensor with gate_places="tensors", [tensors, G]; else ().
    """

    hidden: Tensor
    cell: Tensor
    forget: Tensor
    input: Tensor
    updates: Tensor
    tensors: Any = ()


@keras.saving.register_keras_serializable("tf_metalstm")
class MetaLSTM(Rule):
    """The meta-learner LSTM: an LSTM over losses and gradients, then `MetaLSTMCell`.

    All coordinates share the weights, 2,046 at H = 20; each has its own state.
    Permuting the coordinates permutes the result.

    Args:
        hidden_units: H, units of the first layer.
        gate_feedback: "value" as in the paper, "logit" as in its authors' code.
        preprocessing_scale: p of the preprocessing.
        first_layer: "lstm", or "none" for gates that see only the present gradient and loss.
        forget_gate_bias: range of the initial bias of the forget gate.
        input_gate_bias: range of the initial bias of the input gate.
        gate_places: "none", "multipliers", "inputs" or "tensors", see `rules/gate_places.py`.
        gate_updates: number of updates with their own multipliers or vectors.
        place_units: U, the length of a vector.
        gate_units: G, units of the recurrent network of a tensor.
        name: leave it as it is: weights in checkpoints are found by it.
    """

    part = Part("meta_lstm", "Meta-learner LSTM", "Ravi & Larochelle, ICLR 2017", MetaLSTMOptions)

    @classmethod
    def from_options(cls, options: MetaLSTMOptions) -> MetaLSTM:  # type: ignore[override]
        return cls(
            options.hidden_units,
            options.gate_feedback,
            options.preprocessing_scale,
            options.first_layer,
            options.forget_gate_bias,
            options.input_gate_bias,
            options.gate_places,
            options.gate_updates,
            options.place_units,
            options.gate_units,
        )

    def __init__(
        self,
        hidden_units: int = 20,
        gate_feedback: str = "value",
        preprocessing_scale: float = 10.0,
        first_layer: str = "lstm",
        forget_gate_bias: tuple[float, ...] = FORGET_BIAS,
        input_gate_bias: tuple[float, ...] = INPUT_BIAS,
        gate_places: str = "none",
        gate_updates: int = 5,
        place_units: int = 4,
        gate_units: int = 8,
        name: str = "meta_lstm",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        biases = tuple(forget_gate_bias), tuple(input_gate_bias)
        MetaLSTMOptions(  # checks them
            hidden_units,
            preprocessing_scale,
            *biases,
            gate_places,
            gate_updates,
            place_units,
            gate_units,
            gate_feedback,
            first_layer,
        )
        self.hidden_units = hidden_units
        self.gate_feedback = gate_feedback
        self.preprocessing_scale = preprocessing_scale
        self.gate_places, self.gate_updates = gate_places, gate_updates
        self.place_units, self.gate_units = place_units, gate_units
        # With gate_places the tensors differ; the coordinates of a tensor are alike.
        self.treats_coordinates_alike = gate_places == "none"
        self.multipliers = self.vectors = self.tensor_gates = None
        if gate_places == "multipliers":
            self.multipliers = GateMultipliers(
                gate_updates, dtype=self.dtype_policy, name="multipliers"
            )
        elif gate_places == "inputs":
            self.vectors = PlaceVectors(
                gate_updates, place_units, dtype=self.dtype_policy, name="vectors"
            )
        elif gate_places == "tensors":
            self.tensor_gates = TensorGates(
                gate_units, dtype=self.dtype_policy, name="tensor_gates"
            )
        self.num_inputs = _NUM_INPUTS + (2 * place_units if gate_places == "inputs" else 0)

        def small() -> Any:
            return keras.initializers.RandomUniform(-SMALL, SMALL)

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
        width = self.num_inputs if self.first_layer is None else hidden_units
        self.second_layer = MetaLSTMCell(
            width, gate_feedback, *biases, dtype=self.dtype_policy, name="second_layer"
        )

    def build(self, blocks: Blocks = ()) -> None:
        """Builds the layers; only the layers of `gate_places` depend on theta."""
        if self.first_layer is not None:
            self.first_layer.build((None, self.num_inputs))
        self.second_layer.build()
        for layer in (self.multipliers, self.vectors, self.tensor_gates):
            if layer is not None:
                layer.build(blocks)
        self.built = True

    def initial_state(self, theta: Tensor) -> MetaLSTMState:
        """Returns zeros for h1, c1, both gates, and H."""
        dtype = self.compute_dtype
        units = 0 if self.first_layer is None else self.hidden_units
        by_unit = tf.zeros([tf.size(theta), units], dtype)
        by_coordinate = tf.zeros([tf.size(theta)], dtype)
        none = tf.zeros([], dtype)
        tensors = () if self.tensor_gates is None else self.tensor_gates.initial_state()
        return MetaLSTMState(by_unit, by_unit, by_coordinate, by_coordinate, none, tensors)

    def call(
        self, gradient: Tensor, loss: Tensor, theta: Tensor, state: MetaLSTMState
    ) -> tuple[Tensor, MetaLSTMState]:
        """Returns theta_t and the state for the next update."""
        features = [
            *(tf.fill(tf.shape(gradient), x) for x in preprocess(loss, self.preprocessing_scale)),
            *preprocess(gradient, self.preprocessing_scale),
        ]
        seen = tf.stack(features, axis=1)
        if self.vectors is not None:
            seen = tf.concat([seen, self.vectors(theta, state.updates)], axis=1)
        hidden, cell = state.hidden, state.cell
        if self.first_layer is not None:
            seen, (hidden, cell) = self.first_layer(seen, (hidden, cell))
        added, tensors = None, state.tensors
        if self.tensor_gates is not None:
            added, tensors = self.tensor_gates(gradient, loss, tensors)
        theta, gates = self.second_layer(
            seen,
            gradient,
            theta,
            (state.forget, state.input),
            multiplied=self._multiplied_by(state.updates),
            added=added,
        )
        after = (hidden, cell, gates.forget, gates.input, state.updates + 1, tensors)
        return theta, MetaLSTMState(*after)

    def _multiplied_by(self, updates: Tensor) -> Callable[[Gates], Gates] | None:
        multipliers = self.multipliers
        return None if multipliers is None else lambda gates: multipliers(gates, updates)

    def trace(self, state: MetaLSTMState) -> dict[str, Tensor]:
        """Returns the values of the gates in the last update, also if logits are fed back."""
        gates = Gates(state.forget, state.input)
        if self.gate_feedback == "logit":
            gates = Gates(*map(tf.sigmoid, gates))
        multiplied = self._multiplied_by(tf.maximum(state.updates - 1, 0))
        return (gates if multiplied is None else multiplied(gates)).trace()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = {
            "hidden_units": self.hidden_units,
            "gate_feedback": self.gate_feedback,
            "preprocessing_scale": self.preprocessing_scale,
            "first_layer": "none" if self.first_layer is None else "lstm",
            "forget_gate_bias": self.second_layer.forget_gate_bias,
            "input_gate_bias": self.second_layer.input_gate_bias,
            "gate_places": self.gate_places,
            "gate_updates": self.gate_updates,
            "place_units": self.place_units,
            "gate_units": self.gate_units,
        }
        return {**super().get_config(), **config}
