"""A rule as a Keras optimizer, for any model that is compiled and fitted.

    theta_t = theta_{t-1} + learning_rate * (rule(gradient, loss, theta_{t-1}, state) - theta_{t-1})

theta has all trainable variables of the model, one after the other, because a rule may look at
several tensors at once. So there is one state for the whole theta, not one for each variable
(docs/benchmarks.md compares the costs).

The optimizer trains the model. It does not change the weights of the rule.
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
from tf_metalstm.graphs import graph_function
from tf_metalstm.parameters import Blocks, blocks_of, num_parameters
from tf_metalstm.rule_folder import read_rule
from tf_metalstm.rules.base import Rule

_MUCH = 1e9  # bytes; a larger state is logged


@keras.saving.register_keras_serializable("tf_metalstm")
class LearnedOptimizer(keras.optimizers.Optimizer):
    """An optimizer whose update is a rule, such as an LSTM that was trained to minimize losses.

        model.compile(optimizer=LearnedOptimizer.load("runs/optimizer/optimizer"), loss="mse")
        model.fit(...)

    The state takes `memory` bytes. It is in variables, like the moments of Adam. If a gradient is
    None, its variable does not change, and the rule sees zeros. A sparse gradient, as of an
    embedding, is made dense, because a rule may move a coordinate whose gradient is zero. NaN in a
    gradient makes the variables NaN, as with Keras's own optimizers.

    A rule that uses the loss (`Rule.uses_loss`) gets it from `scale_loss`, which `fit` calls. Your
    own training loop or `train_step` must call it too, as for every Keras optimizer:

        with tf.GradientTape() as tape:
            loss = optimizer.scale_loss(loss_of(model(inputs)))
        optimizer.apply(tape.gradient(loss, variables), variables)

    `keras.optimizers.LossScaleOptimizer` does not pass the loss on. For float16 and such a rule
    give `loss_scale_factor` here and `auto_scale_loss=False` to `compile`. bfloat16 needs neither.

    Args:
        rule: the rule, with its trained weights. It is copied when the optimizer is built. If it
            is not built, it gets fresh weights then.
        trained_steps: number of updates that the rule was trained for. The next one warns.
        learning_rate: factor on every step of the rule, a float or a schedule; 1 changes nothing.
            `weight_decay` is multiplied by it: the product is the share of a weight that is lost
            in one update.
        name: name of the optimizer.
        **options: options of every Keras optimizer: `weight_decay`, `clipnorm`, `clipvalue`,
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
        # The copy is made here, because under LossScaleOptimizer Keras does not track layers that
        # `build` makes. The original is kept, because a graph that builds the optimizer uses it.
        self._fitted = functools.partial(fitted, _fresh(rule), rule)
        self.trained_steps = trained_steps
        # Each replica stores its share of the loss; the sum is read.
        with keras.name_scope(self.name):
            self._loss = keras.Variable(
                0.0, trainable=False, aggregation="sum", synchronization="on_read", name="loss"
            )
        self._loss_is_given = self._has_warned = False

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> LearnedOptimizer:
        """Returns the optimizer from a folder that `python -m tf_metalstm.export` wrote.

        Args:
            folder: folder with a manifest and the weights of a rule.
            **options: arguments of the constructor.

        Raises:
            ValueError: the folder has no such files, or they are damaged.
        """
        read = read_rule(folder)
        return cls(read.rule, **{"trained_steps": read.trained_steps, **options})

    def memory(self, variables: Sequence[Any]) -> int:
        """Returns how many bytes the state would take for these variables.

        During an update the rule needs more memory for what it computes for each coordinate.
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
        """Stores the loss for the rule, and returns it times `loss_scale_factor`.

        Args:
            loss: loss of this batch, a scalar; under a strategy the share of this replica.
        """
        noted = tf.cast(tf.stop_gradient(loss), self._loss.dtype)
        if self.gradient_accumulation_steps:
            is_first = self._iterations.value % self.gradient_accumulation_steps == 0
            noted += tf.where(is_first, 0.0, self._loss.value)
        self._loss.assign(noted)
        self._loss_is_given = True
        return super().scale_loss(loss)

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """Updates the variables once.

        Raises:
            ValueError: a gradient does not have the shape of its variable, or the rule needs a
                loss and has none.
        """
        variables = (
            self._trainable_variables if trainable_variables is None else trainable_variables
        )
        if len(variables) == len(grads):  # else Keras raises an error
            grads = [_dense(g, v) for g, v in zip(grads, variables, strict=True)]
        super().apply(grads, trainable_variables)
        self._count()

    def finalize_variable_values(self, var_list: Any) -> None:
        """Ends a `fit` as every Keras optimizer does; gives the warning that XLA could not give."""
        super().finalize_variable_values(var_list)
        if self.trained_steps is not None and int(self.iterations) > self.trained_steps:
            self._warn_of_steps()

    def get_config(self) -> dict[str, Any]:
        """Returns the config of an equal optimizer: the rule, its weights and the options."""
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

    # Keras calls this, across replicas and with all gradients, after it has scaled, summed,
    # clipped and accumulated them.
    def _distributed_tf_update_step(
        self, distribution: Any, grads_and_vars: Any, learning_rate: Any
    ) -> None:
        if self.rule.uses_loss and not self._loss_is_given:
            raise ValueError(
                f"The rule {self.rule.name} needs the loss but did not get it: call loss = "
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
        """Makes one update on one device, which has all arguments."""
        del first  # this variable only determines the device
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
        if context is not None:  # in a replica it is only a share
            loss = context.all_reduce(tf.distribute.ReduceOp.SUM, loss)
        return loss / (self.gradient_accumulation_steps or 1)

    def _moved(self, variables: Sequence[Any]) -> list[Any]:
        """Returns the variables that the rule updates, without those that Keras overwrites."""
        return [v for v in variables if not self._overwrite_variable_with_gradient(v)]

    def _count(self) -> None:
        """Counts the updates, and warns at the first one beyond those of the training."""
        if self.trained_steps is None or self._has_warned:
            return
        num_updates = tf.convert_to_tensor(self.iterations)
        if tf.executing_eagerly():
            if int(num_updates) > self.trained_steps:
                self._warn_of_steps()
        # XLA cannot call Python; then `finalize_variable_values` warns.
        elif not GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
            tf.cond(
                num_updates > self.trained_steps,
                lambda: tf.py_function(self._warn_of_steps, [], tf.bool),
                lambda: False,
            )

    def _warn_of_steps(self) -> bool:
        if self._has_warned:
            return True
        self._has_warned = True
        warnings.warn(
            f"{self.name} goes beyond the {self.trained_steps} updates that its rule was trained "
            "for, and may fail now. Watch the validation loss, or continue with another optimizer.",
            stacklevel=2,
        )
        return True


def fitted(copy: Rule, rule: Rule, blocks: Blocks) -> Rule:
    """Returns a copy of a rule, with the same weights, for a theta of these blocks.

    Args:
        copy: a rule with the same options that is not built.
        rule: the rule, built for any blocks.
        blocks: the tensors of theta.

    Raises:
        ValueError: the shapes of its weights depend on the network that it was trained on.
    """
    copy.build(blocks)
    shapes = [[tuple(weight.shape) for weight in each.weights] for each in (rule, copy)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The rule {rule.name} has weights of the shapes {shapes[0]}, but for this model it "
            f"needs {shapes[1]}: it learned a weight for each parameter of its training. Use it "
            "on that network, or take a rule that is the same for all coordinates, such as "
            "meta_lstm."
        )
    copy.set_weights(rule.get_weights())
    return copy


def _fresh(rule: Rule) -> Rule:
    return type(rule).from_config(rule.get_config())


def _blocks(variables: Sequence[Any]) -> Blocks:
    """Returns the blocks of a theta that consists of Keras variables."""
    return blocks_of((variable.path, tuple(variable.shape)) for variable in variables)


def _flat(tensors: Sequence[Any], dtype: str) -> Tensor:
    """Returns tensors as one vector, [P]."""
    if not tensors:  # the model has nothing to train
        return tf.zeros([0], dtype)
    return tf.concat([tf.cast(tf.reshape(t, [-1]), dtype) for t in tensors], axis=0)


def _dense(gradient: Any, variable: Any) -> Any:
    """Returns a gradient as a tensor of the shape of its variable; None stays None."""
    if gradient is None:
        return None
    gradient = tf.convert_to_tensor(gradient)  # sums the rows of a sparse gradient
    if not gradient.shape.is_compatible_with(variable.shape):
        raise ValueError(
            f"The gradient for {variable.name} has the shape {tuple(gradient.shape)}, but the "
            f"variable is {tuple(variable.shape)}: give gradients in the order of the variables."
        )
    return gradient


def _state_specs(rule: Rule, size: int) -> Any:
    """Returns shapes and types of the state for theta [size], without computing it."""
    start = graph_function(rule.initial_state)
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
    """Returns an array in a form that JSON can contain."""
    little = array.astype(array.dtype.newbyteorder("<"))
    data = base64.b64encode(little.tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decoded(encoded: dict[str, Any]) -> np.ndarray:
    """Returns the array from the result of `_encoded`."""
    dtype = np.dtype(encoded["dtype"]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(encoded["data"]), dtype).reshape(encoded["shape"])
