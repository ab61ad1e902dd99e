"""Adam with the meta-gradient clipped by its global norm, on one device or on many."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tf_metalstm")
class ClippedAdam(keras.optimizers.Adam):
    """Adam whose gradient is clipped after it was summed over the devices.

    Keras clips what each device has and sums then, so that `global_clipnorm` would mean another
    thing for every number of devices; here a step over E episodes is the same on any of them.

    Args:
        learning_rate: a number or a schedule.
        clip_norm: the global norm that the gradient of all variables together may have.
        name: of the optimizer.
        **kwargs: further arguments of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        clip_norm: float = 0.25,
        name: str = "adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **kwargs)
        if clip_norm <= 0:
            raise ValueError(f"--clip_norm must be positive, got {clip_norm}.")
        self.clip_norm = clip_norm

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Clips, then updates the variables as Adam does."""
        replica = tf.distribute.get_replica_context()
        num_replicas = replica.num_replicas_in_sync
        if num_replicas > 1:
            grads = replica.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        grads, _ = tf.clip_by_global_norm(grads, self.clip_norm)
        # Keras sums over the devices once more: equal shares make up the clipped gradient.
        return super().apply([g / num_replicas for g in grads], trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "clip_norm": self.clip_norm}
