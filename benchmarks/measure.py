"""How a time is taken, and the yardstick: these machines are noisy, and a ratio is less so."""

import resource
import statistics
import time

import tensorflow as tf

_SIDE = 1536


def timed(function, repeats=10, warm_up=2):
    """Returns median, fastest and slowest wall time of a call, and its processor time, seconds.

    `function` returns when its work is done: it ends with a `.numpy()`.
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
    """Returns the operations a second of a large matrix product, the best of some."""
    a = tf.random.stateless_normal([_SIDE, _SIDE], seed=[0, 1])
    product = tf.function(lambda x: tf.reduce_sum(x @ x))
    fastest = timed(lambda: product(a).numpy(), repeats)["fastest"]
    return 2.0 * _SIDE**3 / fastest


def peak_bytes():
    """Returns the largest memory that this process has had, resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
