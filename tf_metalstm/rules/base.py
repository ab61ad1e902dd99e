"""The protocol of update rules: how the parameters of a learner move.

    theta_t, state_t = rule(gradient_t, loss_t, theta_{t-1}, state_{t-1})

A rule is a Keras layer. Its weights are the meta-parameters, learned across tasks; its state
belongs to one task and is passed from update to update. A rule never sees an image. All it knows
of the learner is which tensors theta consists of.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple

import keras

from tf_metalstm.episode import Tensor
from tf_metalstm.options import Options
from tf_metalstm.parameters import Blocks, blocks_of
from tf_metalstm.parts import Part

FORGET_GATES, INPUT_GATES = "forget_gates", "input_gates"
"""Names in the trace of every rule that has gates."""


class Gates(NamedTuple):
    """The gates of one update, for every coordinate: theta <- forget * theta - input * grad.

    forget: the factor on the old parameters (one minus the weight decay), [P].
    input: the factor on the gradient (the learning rate), [P].
    """

    forget: Tensor
    input: Tensor

    def trace(self) -> dict[str, Tensor]:
        """Returns both by name, as `Rule.trace` shows them."""
        return {FORGET_GATES: self.forget, INPUT_GATES: self.input}


def cell_update(gates: Gates, theta: Tensor, gradient: Tensor) -> Tensor:
    """Returns theta_t = f_t * theta_{t-1} - i_t * grad_t (Ravi & Larochelle, equation 2), [P]."""
    return gates.forget * theta - gates.input * gradient


class Rule(keras.layers.Layer, abc.ABC):
    """One update of the flat parameter vector of a learner.

    `build` takes the blocks of theta; the weights of the rule may depend on them.
    """

    family: ClassVar[str] = "rule"
    part: ClassVar[Part]

    treats_coordinates_alike: bool = True
    """Whether all coordinates are treated alike, so that the rule prefers no class."""

    takes_rows: ClassVar[bool] = True
    """Whether theta may have a row for each class of the episode (`ParameterBlock.per_class`)."""

    uses_loss: ClassVar[bool] = True
    """Whether the rule uses the loss; then a Keras optimizer must be given the loss."""

    @classmethod
    def from_options(cls, options: Options) -> Rule:
        """Returns the rule with these options; it is not built yet."""
        raise NotImplementedError(f"{cls.__name__} lacks from_options, which builds the rule.")

    @abc.abstractmethod
    def build(self, blocks: Blocks) -> None:
        """Creates the weights for a theta that consists of these blocks."""

    @abc.abstractmethod
    def initial_state(self, theta: Tensor) -> Any:
        """Returns the state before the first update of a task, for theta [P]; nested tensors."""

    @abc.abstractmethod
    def call(self, gradient: Tensor, loss: Tensor, theta: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Returns theta [P] and the state after one update.

        Call arguments:
            gradient: of the loss with respect to theta, [P].
            loss: at theta, a scalar.
            theta: the parameters before the update, [P].
            state: what `initial_state` or the last update returned.
        """

    def trace(self, state: Any) -> dict[str, Tensor]:
        """Returns tensors to draw of the update that led to `state`, by name; may be {}.

        Figures, TensorBoard and the signatures of an exported model show them. Names and shapes
        are the same for every state.
        """
        del state
        return {}

    def get_build_config(self) -> dict[str, Any] | None:
        """Returns the blocks that the rule was built for, for Keras; None if it is not built."""
        if not self.built:
            return None
        [blocks] = (self._build_shapes_dict or {"blocks": ()}).values()
        return {"blocks": [[block.name, list(block.shape), block.per_class] for block in blocks]}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds the rule for the blocks that `get_build_config` returned."""
        kept = config["blocks"]
        blocks = blocks_of((name, tuple(shape)) for name, shape, _ in kept)
        self.build(
            tuple(
                block._replace(per_class=per_class)
                for block, (_, _, per_class) in zip(blocks, kept, strict=True)
            )
        )
