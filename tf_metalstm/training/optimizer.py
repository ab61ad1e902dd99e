"""Adam with a clipped meta-gradient, its learning rate schedule, and the average of the weights.

The gradient is clipped by its global norm or by value, on one device or on many.

With weight decay this is AdamW (Loshchilov & Hutter, ICLR 2019): before Adam's own update each
kernel becomes

    w <- w - learning rate x weight decay x w

The decay is not added to the gradient. Only weights whose name ends in "kernel" decay. Biases, the
scales of batch norm, and c_0 (one vector of all parameters of the learner) do not decay.

The learning rate can rise and fall. The optimizer can keep an exponential average of the weights
over the last updates (after Polyak & Juditsky, 1992). If it does, the average is validated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


def make_learning_rate(rate: float, warmup_steps: int = 0, decay_steps: int = 0) -> Any:
    """Returns a constant learning rate, or a schedule with a linear rise and a cosine fall.

    The schedule rises from 0 to `rate` and falls to a hundredth of it.

    Args:
        rate: the highest learning rate.
        warmup_steps: number of updates in which the rate rises; 0 for no rise.
        decay_steps: number of updates after the rise in which the rate falls. Then it stays
            constant. 0 for a rate that does not fall.

    Raises:
        ValueError: a number of steps is negative.
    """
    for flag, steps in (("warmup_steps", warmup_steps), ("decay_steps", decay_steps)):
        if steps < 0:
            raise ValueError(f"{flag} must not be negative, got {steps}.")
    if not warmup_steps and not decay_steps:
        return rate
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else rate,
        max(decay_steps, 1),
        alpha=0.01 if decay_steps else 1.0,
        warmup_target=rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


@contextlib.contextmanager
def averaged_weights(method: keras.Model) -> Iterator[None]:
    """Gives a method the average of its weights while the context lasts, if there is an average."""
    optimizer = method.optimizer
    if optimizer is None or not optimizer.use_ema:
        yield
        return
    now = [tf.identity(weight.value) for weight in method.trainable_weights]
    try:
        averages = optimizer._model_variables_moving_average
        for weight, average in zip(method.trainable_weights, averages, strict=True):
            weight.assign(average.value)
        yield
    finally:
        for weight, value in zip(method.trainable_weights, now, strict=True):
            weight.assign(value)


@keras.saving.register_keras_serializable("tf_metalstm")
class ClippedAdam(keras.optimizers.Adam):
    """Adam that first sums the gradient over the devices and then clips it.

    Keras clips the gradient on each device and then sums, so the effect of its `global_clipnorm`
    depends on the number of devices. Here a step over E episodes is the same on any number.

    Args:
        learning_rate: a number or a schedule.
        clip_norm: largest global norm of the gradient of all variables together; 0 for no limit.
        clip_value: largest absolute value of each number of the gradient; 0 for no limit.
        weight_decay: weight decay of kernels, in the formula above; None for no decay.
        name: name of the optimizer.
        **kwargs: further arguments of `keras.optimizers.Adam`.

    Raises:
        ValueError: a limit is negative; or, when it is built, there is weight decay but no kernel.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        clip_norm: float = 0.25,
        clip_value: float = 0.0,
        weight_decay: float | None = None,
        name: str = "adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        for flag, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
            if limit < 0:
                raise ValueError(f"{flag} must be positive, or 0 for no limit; got {limit}.")
        self.clip_norm, self.clip_value = clip_norm, clip_value

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates the moments; excludes weights that are not kernels from the weight decay."""
        if self.weight_decay is not None and not self.built:
            others = [each for each in variables if not each.name.endswith("kernel")]
            if len(others) == len(variables):
                raise ValueError(
                    "weight_decay has an effect on kernels only, and none of the weights that are "
                    "trained here is a kernel: leave it out."
                )
            self.exclude_from_weight_decay(var_list=others)
        super().build(variables)

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Clips, then updates the variables as Adam does.

        Weights that the loss does not depend on, such as those of a rule that makes no update, have
        a gradient of zero.
        """
        variables = trainable_variables or self._trainable_variables
        pairs = zip(grads, variables, strict=True)
        grads = [tf.zeros_like(each) if grad is None else grad for grad, each in pairs]
        replica = tf.distribute.get_replica_context()
        num_replicas = replica.num_replicas_in_sync
        if num_replicas > 1:
            grads = replica.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        if self.clip_value:
            grads = [tf.clip_by_value(g, -self.clip_value, self.clip_value) for g in grads]
        if self.clip_norm:
            grads, _ = tf.clip_by_global_norm(grads, self.clip_norm)
        # Keras sums over the devices once more, so each device gets an equal share.
        return super().apply([g / num_replicas for g in grads], trainable_variables)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Does nothing.

        At the end of `fit` Keras would replace the weights by their averages. A run that continues
        would then start from the averages.
        """

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        limits = {"clip_norm": self.clip_norm, "clip_value": self.clip_value}
        return {**super().get_config(), **limits}
