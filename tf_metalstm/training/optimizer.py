"""Adam with the meta-gradient clipped, by its global norm or by value, on one device or on many.

With weight decay it is AdamW (Loshchilov & Hutter, ICLR 2019): before Adam's own update each kernel
becomes

    w <- w - learning rate x weight decay x w

beside the gradient, not through it. Only weights whose name ends in "kernel" decay: biases and the
scales of batch norm do not, nor does c_0, which is one vector of all the learner's parameters.

And what goes with it: a rate that rises and falls, and the average of the weights over the last
updates (Polyak & Juditsky, 1992; exponential), which is what is validated where it is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


def make_learning_rate(rate: float, warmup_steps: int = 0, decay_steps: int = 0) -> Any:
    """Returns a rate, or one that rises in a line from 0 and falls as a cosine to a hundredth.

    Args:
        rate: the highest.
        warmup_steps: updates in which it rises; 0 for none.
        decay_steps: updates, after those, in which it falls; then it stays. 0 for a rate that does
            not fall.
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
    """While it lasts the method has the averages for weights, if its optimizer keeps them."""
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
    """Adam whose gradient is clipped after it was summed over the devices.

    Keras clips what each device has and sums then, so that `global_clipnorm` would mean another
    thing for every number of devices; here a step over E episodes is the same on any of them.

    Args:
        learning_rate: a number or a schedule.
        clip_norm: the global norm that the gradient of all variables together may have; 0 for any.
        clip_value: the size that any number of the gradient may have; 0 for any.
        weight_decay: of kernels, as above; None for none.
        name: of the optimizer.
        **kwargs: further arguments of `keras.optimizers.Adam`.
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
        """Makes the moments; what is not a kernel is kept out of the weight decay."""
        if self.weight_decay is not None and not self.built:
            others = [each for each in variables if not each.name.endswith("kernel")]
            if len(others) == len(variables):
                raise ValueError(
                    "weight_decay is for kernels, and none of the weights that are trained here is "
                    "one: leave it out."
                )
            self.exclude_from_weight_decay(var_list=others)
        super().build(variables)

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Clips, then updates the variables as Adam does."""
        replica = tf.distribute.get_replica_context()
        num_replicas = replica.num_replicas_in_sync
        if num_replicas > 1:
            grads = replica.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        if self.clip_value:
            grads = [tf.clip_by_value(g, -self.clip_value, self.clip_value) for g in grads]
        if self.clip_norm:
            grads, _ = tf.clip_by_global_norm(grads, self.clip_norm)
        # Keras sums over the devices once more: equal shares make up the clipped gradient.
        return super().apply([g / num_replicas for g in grads], trainable_variables)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Leaves the weights as they are.

        At the end of `fit` Keras would put the averages in their place, and a run that goes on
        would start from those.
        """

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        limits = {"clip_norm": self.clip_norm, "clip_value": self.clip_value}
        return {**super().get_config(), **limits}
