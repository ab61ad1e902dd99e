"""A rule as a Keras optimizer, for any model that is compiled and fitted.

    theta_t = theta_{t-1} + learning_rate * (rule(gradient, loss, theta_{t-1}, state) - theta_{t-1})

theta is all trainable variables of the model, one after the other: a rule may look at several
tensors at once. So the state is that of the rule for the whole theta, and not one for each variable
(docs/benchmarks.md has what either way costs).

What the rule has learned stays as it is: a model is trained by it, and it is not.
"""

from __future__ import annotations

import base64
import functools
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from tf_metalstm.episode import Tensor
from tf_metalstm.parameters import Blocks, blocks_of, num_parameters
from tf_metalstm.rule_folder import read_rule
from tf_metalstm.rules.base import Rule

_MUCH = 1e9  # bytes of state from which on the memory is worth a warning


@keras.saving.register_keras_serializable("tf_metalstm")
class LearnedOptimizer(keras.optimizers.Optimizer):
    """An optimizer whose update is a rule, as an LSTM that was trained to make losses small.

        model.compile(optimizer=LearnedOptimizer.load("runs/optimizer/optimizer"), loss="mse")
        model.fit(...)

    The state, `memory` bytes, lies in variables like the moments of Adam. A gradient of None leaves
    its variable where it is, and the rule sees zeros in its place. A sparse gradient, as of an
    embedding, is made dense: a rule may move a coordinate whose gradient is zero. NaN in a gradient
    goes into the variables, as with Keras's own optimizers.

    A rule that looks at the loss (`Rule.uses_loss`) gets it from `scale_loss`, which `fit` calls. A
    training loop of your own calls it too, as for every Keras optimizer, also in `train_step`:

        with tf.GradientTape() as tape:
            loss = optimizer.scale_loss(loss_of(model(inputs)))
        optimizer.apply(tape.gradient(loss, variables), variables)

    `keras.optimizers.LossScaleOptimizer` keeps the loss for itself. For float16 and such a rule,
    give `loss_scale_factor` here and `auto_scale_loss=False` to `compile`. bfloat16 needs neither.

    Args:
        rule: how the variables move, with the weights it was trained to; it is copied when the
            optimizer is built. A rule that is not built is built then, with fresh weights.
        trained_steps: updates that the rule was trained for. The first one beyond them warns.
        learning_rate: factor on every step of the rule: 1 takes the rule as it is. A float or a
            schedule. `weight_decay` is multiplied by it, so it is the share that is lost in one
            update.
        name: of the optimizer.
        **options: those of every Keras optimizer: `weight_decay`, `clipnorm`, `clipvalue`,
            `global_clipnorm`, `use_ema`, `ema_momentum`, `ema_overwrite_frequency`,
            `loss_scale_factor`, `gradient_accumulation_steps`. With accumulation the rule sees the
            mean of the losses.
    """

    def __init__(
        self,
        rule: Rule,
        trained_steps: int | None = None,
        learning_rate: Any = 1.0,
        name: str = "learned_optimizer",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **options)
        if not isinstance(rule, Rule):
            raise ValueError(
                f"rule must be a tf_metalstm.Rule, such as MetaLSTM(), got {rule!r}. "
                "LearnedOptimizer.load(folder) reads an exported one."
            )
        self.rule = rule
        # The copy is made here: under LossScaleOptimizer Keras tracks no layers made in `build`.
        # The rule that was given has to stay: a graph that builds the optimizer has seen it.
        self._fitted = functools.partial(fitted, _fresh(rule), rule)
        self.trained_steps = trained_steps
        # Each replica keeps its share of the loss; read by all, it is their sum.
        with keras.name_scope(self.name):
            self._loss = keras.Variable(
                0.0, trainable=False, aggregation="sum", synchronization="on_read", name="loss"
            )
        self._loss_is_given = self._has_warned = False

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> LearnedOptimizer:
        """Returns the optimizer of a folder that `python -m tf_metalstm.export` wrote.

        Args:
            folder: with a manifest and the weights of a rule.
            **options: as the constructor takes them.

        Raises:
            ValueError: the folder holds something else, or what is there is damaged.
        """
        read = read_rule(folder)
        return cls(read.rule, **{"trained_steps": read.trained_steps, **options})

    def memory(self, variables: Sequence[Any]) -> int:
        """Returns how many bytes the state takes for these variables; nothing is taken.

        An update takes more for a moment: what the rule computes for each coordinate.
        """
        blocks = _blocks(self._moved(variables))
        rule = _fresh(self.rule)
        rule.build(blocks)
        return _num_bytes(_state_specs(rule, num_parameters(blocks)))

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the state of the rule for these variables.

        Raises:
            ValueError: the rule has weights that only fit the parameters it was trained on.
        """
        if self.built:
            return
        super().build(variables)
        moved = self._moved(variables)
        blocks = _blocks(moved)
        with tf.init_scope():
            if self.rule.built:
                self.rule = self._fitted(blocks)
            else:
                self.rule.build(blocks)
            specs = _state_specs(self.rule, num_parameters(blocks))
            _say_memory(_num_bytes(specs), num_parameters(blocks))
            theta = _flat([v.value for v in moved], self.rule.compute_dtype)
            first = tf.nest.flatten(self.rule.initial_state(theta))
        self._packed = functools.partial(tf.nest.pack_sequence_as, specs)
        self._state = [
            self.add_variable(
                tuple(value.shape),
                lambda shape, dtype, value=value: tf.cast(value, dtype),
                value.dtype.name,
                name=f"state_{index}",
            )
            for index, value in enumerate(first)
        ]

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Notes the loss for the rule, and returns it times `loss_scale_factor`.

        Args:
            loss: of this batch, a scalar; under a strategy the share of this replica.
        """
        noted = tf.cast(tf.stop_gradient(loss), self._loss.dtype)
        if self.gradient_accumulation_steps:
            is_first = self._iterations.value % self.gradient_accumulation_steps == 0
            noted += tf.where(is_first, 0.0, self._loss.value)
        self._loss.assign(noted)
        self._loss_is_given = True
        return super().scale_loss(loss)

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """Moves the variables by one update.

        Raises:
            ValueError: a gradient has another shape than its variable, or the rule wants a loss
                that it was not given.
        """
        given = self._trainable_variables if trainable_variables is None else trainable_variables
        if len(given) == len(grads):  # Keras says it where not
            grads = [_dense(g, v) for g, v in zip(grads, given, strict=True)]
        super().apply(grads, trainable_variables)
        self._count()

    def finalize_variable_values(self, var_list: Any) -> None:
        """Ends a `fit`: as for every Keras optimizer, and a warning that XLA could not give."""
        super().finalize_variable_values(var_list)
        if self.trained_steps is not None and int(self.iterations) > self.trained_steps:
            self._warn_of_steps()

    def get_config(self) -> dict[str, Any]:
        """Returns what makes an equal optimizer: the rule, its weights and the options."""
        return {
            **super().get_config(),
            "rule": keras.saving.serialize_keras_object(self.rule),
            "weights": [_encoded(w.numpy()) for w in self.rule.weights],
            "trained_steps": self.trained_steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> LearnedOptimizer:
        """Returns an optimizer from what `get_config` returned."""
        config = dict(config)
        rule = keras.saving.deserialize_keras_object(config.pop("rule"), custom_objects)
        weights = [_decoded(each) for each in config.pop("weights")]
        if weights:
            rule.set_weights(weights)
        return super().from_config({**config, "rule": rule}, custom_objects)

    # What Keras calls once it has scaled, summed over replicas, clipped and accumulated the
    # gradients: with all of them, across replicas.
    def _distributed_tf_update_step(
        self, distribution: Any, grads_and_vars: Any, learning_rate: Any
    ) -> None:
        if self.rule.uses_loss and not self._loss_is_given:
            raise ValueError(
                f"The rule {self.rule.name} looks at the loss and was given none: call loss = "
                "optimizer.scale_loss(loss) before the gradient is taken. LossScaleOptimizer does "
                "not: give loss_scale_factor here and auto_scale_loss=False to compile instead."
            )
        gradients = {self._var_key(variable): gradient for gradient, variable in grads_and_vars}
        variables = [variable.value for variable in self._moved(self._trainable_variables)]
        distribution.extended.update(
            variables[0],
            self._move,
            args=(
                variables,
                [gradients.get(self._var_key(variable)) for variable in variables],
                [variable.value for variable in self._state],
                self._loss_of_all_replicas(),
                learning_rate,
            ),
            group=False,
        )

    def _move(
        self,
        first: Any,
        variables: Sequence[Any],
        gradients: Sequence[Any],
        state: Sequence[Any],
        loss: Tensor,
        learning_rate: Any,
    ) -> None:
        """Makes one update on one device, where all its arguments are."""
        del first  # the variable that says which device
        dtype = self.rule.compute_dtype
        theta = _flat(variables, dtype)
        filled = [
            tf.zeros_like(v) if g is None else g for g, v in zip(gradients, variables, strict=True)
        ]
        moved, new = self.rule(
            _flat(filled, dtype), tf.cast(loss, dtype), theta, self._packed(list(state))
        )
        step = tf.cast(learning_rate, dtype) * (moved - theta)
        steps = tf.split(step, [math.prod(v.shape) for v in variables])
        for gradient, variable, by in zip(gradients, variables, steps, strict=True):
            if gradient is not None:
                by = tf.cast(tf.reshape(by, variable.shape), variable.dtype)
                variable.assign_add(by)
        for old, value in zip(state, tf.nest.flatten(new), strict=True):
            old.assign(tf.cast(value, old.dtype))

    def _loss_of_all_replicas(self) -> Tensor:
        loss = tf.convert_to_tensor(self._loss.value)
        context = tf.distribute.get_replica_context()
        if context is not None:  # a replica has only its share
            loss = context.all_reduce(tf.distribute.ReduceOp.SUM, loss)
        return loss / (self.gradient_accumulation_steps or 1)

    def _moved(self, variables: Sequence[Any]) -> list[Any]:
        """Returns the variables that the rule moves: not those that are set to their gradient."""
        return [v for v in variables if not self._overwrite_variable_with_gradient(v)]

    def _count(self) -> None:
        """Warns where this is the first update beyond the trained ones."""
        if self.trained_steps is None or self._has_warned:
            return
        made = tf.convert_to_tensor(self.iterations)
        if tf.executing_eagerly():
            if int(made) > self.trained_steps:
                self._warn_of_steps()
        # XLA calls no Python; `finalize_variable_values` warns then.
        elif not GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
            tf.cond(
                made > self.trained_steps,
                lambda: tf.py_function(self._warn_of_steps, [], tf.bool),
                lambda: False,
            )

    def _warn_of_steps(self) -> bool:
        if self._has_warned:
            return True
        self._has_warned = True
        warnings.warn(
            f"{self.name} goes beyond the {self.trained_steps} updates that its rule was trained "
            "for: from here on nothing is known of it. Watch the validation loss, or go on with "
            "another optimizer.",
            stacklevel=2,
        )
        return True


def fitted(copy: Rule, rule: Rule, blocks: Blocks) -> Rule:
    """Returns a copy of a rule, with the same weights, for a theta of these blocks.

    Args:
        copy: a rule with the same options, not built.
        rule: built for any blocks.
        blocks: the tensors of theta.

    Raises:
        ValueError: its weights belong to the parameters that it was trained on.
    """
    copy.build(blocks)
    shapes = [[tuple(weight.shape) for weight in each.weights] for each in (rule, copy)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The rule {rule.name} has weights of the shapes {shapes[0]}, but for this model it "
            f"needs {shapes[1]}: it learned something for each parameter that it was trained on. "
            "Use it on that network, or take a rule that is the same for all coordinates, such as "
            "meta_lstm."
        )
    copy.set_weights(rule.get_weights())
    return copy


def _fresh(rule: Rule) -> Rule:
    return type(rule).from_config(rule.get_config())


def _blocks(variables: Sequence[Any]) -> Blocks:
    """Returns the blocks of theta that Keras variables make."""
    return blocks_of((variable.path, tuple(variable.shape)) for variable in variables)


def _flat(tensors: Sequence[Any], dtype: str) -> Tensor:
    """Returns tensors one after the other, [P]."""
    if not tensors:  # a model may have nothing to train
        return tf.zeros([0], dtype)
    return tf.concat([tf.cast(tf.reshape(t, [-1]), dtype) for t in tensors], axis=0)


def _dense(gradient: Any, variable: Any) -> Any:
    """Returns a gradient as a tensor of the shape of its variable; None stays None."""
    if gradient is None:
        return None
    gradient = tf.convert_to_tensor(gradient)  # sums up the rows of a sparse one
    if not gradient.shape.is_compatible_with(variable.shape):
        raise ValueError(
            f"The gradient for {variable.name} has the shape {tuple(gradient.shape)}, but the "
            f"variable is {tuple(variable.shape)}: give gradients in the order of the variables."
        )
    return gradient


def _state_specs(rule: Rule, size: int) -> Any:
    """Returns shapes and types of the state for theta [size]; nothing is computed."""
    start = tf.function(rule.initial_state)
    traced = start.get_concrete_function(tf.TensorSpec([size], rule.compute_dtype))
    return tf.nest.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), traced.structured_outputs
    )


def _num_bytes(specs: Any) -> int:
    return sum(math.prod(spec.shape) * spec.dtype.size for spec in tf.nest.flatten(specs))


def _say_memory(num_bytes: int, size: int) -> None:
    say = logging.warning if num_bytes >= _MUCH else logging.info
    say(
        "The state of the learned optimizer takes %.3g MB: %.0f bytes for each of %d parameters.",
        num_bytes / 1e6,
        num_bytes / max(size, 1),
        size,
    )


def _encoded(array: np.ndarray) -> dict[str, Any]:
    """Returns an array as JSON can have it."""
    little = array.astype(array.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decoded(encoded: dict[str, Any]) -> np.ndarray:
    """Returns the array that `_encoded` was given."""
    dtype = np.dtype(encoded["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(encoded["data"]), dtype).reshape(encoded["shape"])
