"""Measures times, and the rate of a matrix product: ratios of the two vary less between runs."""

import resource
import statistics
import time

import tensorflow as tf

_SIDE = 1536


def timed(function, repeats=10, warm_up=2):
    """Returns median, fastest and slowest wall time of a call, and its processor time, in seconds.

    `function` must return after its work is done, for example with `.numpy()` at its end.
    """
    for _ in range(warm_up):
        function()
    walls, processors = [], []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        function()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {
        "seconds": statistics.median(walls),
        "fastest": min(walls),
        "slowest": max(walls),
        "processor_seconds": statistics.median(processors),
        "repeats": repeats,
    }


def multiply_rate(repeats=15):
    """Returns the operations per second of a large matrix product, the best of several runs."""
    a = tf.random.stateless_normal([_SIDE, _SIDE], seed=[0, 1])
    product = tf.function(lambda x: tf.reduce_sum(x @ x))
    fastest = timed(lambda: product(a).numpy(), repeats)["fastest"]
    return 2.0 * _SIDE**3 / fastest


def peak_bytes():
    """Returns the peak resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
