"""Training on several devices or machines: `tf.distribute` strategies for Keras `fit`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

STRATEGIES = ("none", "mirrored", "multi_worker")


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """`tf.distribute.MultiWorkerMirroredStrategy` as Keras 3.15 needs it.

    Keras passes whole structures to `reduce`, and reduces scalars along an axis that they do not
    have. `tf.distribute.MirroredStrategy` accepts both; TensorFlow's multi-worker strategy accepts
    neither.
    """

    def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
        """Returns a structure with every value reduced over all replicas; scalars along no axis."""
        reduce_tensor = super().reduce

        def reduce_one(one: Any) -> Any:
            is_scalar = tf.is_tensor(one) and one.shape.rank == 0
            return reduce_tensor(reduce_op, one, axis=None if is_scalar else axis)

        return tf.nest.map_structure(reduce_one, value)


def build_strategy(name: str) -> tf.distribute.Strategy:
    """Returns a distribution strategy.

    Build "multi_worker" before TensorFlow does anything else in the process.

    Args:
        name: "none" uses one device. "mirrored" uses all GPUs of this machine, or all logical CPUs
            if it has no GPU. "multi_worker" uses one process with one device on each machine that
            the environment variable TF_CONFIG lists.

    Raises:
        ValueError: "multi_worker" without TF_CONFIG, or with several GPUs for one process.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "multi_worker":
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        if not resolver.cluster_spec().as_dict():
            raise ValueError(
                "strategy=multi_worker needs the environment variable TF_CONFIG, for example\n"
                '  TF_CONFIG=\'{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
                '"task": {"type": "worker", "index": 0}}\'\n'
                "with its own index on each machine. On one machine use strategy=mirrored."
            )
        num_gpus = len(tf.config.list_physical_devices("GPU"))
        if num_gpus > 1:
            raise ValueError(
                f"strategy=multi_worker uses one GPU in each process, but this process sees "
                f"{num_gpus}: start one process for each GPU, with its own CUDA_VISIBLE_DEVICES, "
                "port and index."
            )
        return MultiWorkerStrategy(cluster_resolver=resolver)
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes the files of the run; only the first worker does."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type is None:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().as_dict()
    )


def agreed(strategy: tf.distribute.Strategy, number: float) -> float:
    """Returns the mean of one number over all workers; every worker must call this."""
    if not isinstance(strategy, MultiWorkerStrategy):
        return number
    mine = tf.constant(number, tf.float64)
    return float(strategy.reduce(tf.distribute.ReduceOp.MEAN, mine))
