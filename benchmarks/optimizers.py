"""Measures a step of a rule as a Keras optimizer, and of Keras's Adam."""

import keras
import tensorflow as tf
from measure import multiply_rate, peak_bytes, timed

from tf_metalstm.keras_optimizer import LearnedOptimizer
from tf_metalstm.rules.catalogue import RULES

NUM_VARIABLES = 10
SIZES = {"1e4": 10**4, "1e6": 10**6, "1e7": 10**7}
NAMES = ("adam_of_keras", "sgd", "adam", "lstm_optimizer", "meta_lstm", "hierarchical_rnn")


def _optimizer(name):
    if name == "adam_of_keras":
        return keras.optimizers.Adam()
    rule = RULES[name]
    return LearnedOptimizer(rule.from_options(rule.part.options()))


def step(name, size, apart=False):
    """Times an update of `size` parameters in ten variables.

    Args:
        name: name of the rule, or adam_of_keras.
        size: number of parameters.
        apart: whether each variable has its own optimizer.
    """
    shape = [size // NUM_VARIABLES // 10, 10]
    variables = [keras.Variable(tf.ones(shape), name=f"v_{i}") for i in range(NUM_VARIABLES)]
    gradients = [tf.random.stateless_normal(shape, [0, i]) for i in range(NUM_VARIABLES)]
    groups = [[i] for i in range(NUM_VARIABLES)] if apart else [list(range(NUM_VARIABLES))]
    before = peak_bytes()
    optimizers = [_optimizer(name) for _ in groups]
    for optimizer, group in zip(optimizers, groups, strict=True):
        optimizer.build([variables[i] for i in group])

    @tf.function
    def update():
        for optimizer, group in zip(optimizers, groups, strict=True):
            optimizer.scale_loss(tf.constant(1.0))
            optimizer.apply([gradients[i] for i in group])

    def once():  # a graph writes all variables before it returns
        update()
        return variables[0].numpy()[0]

    row = timed(once, repeats=5 if size > 10**6 else 10)
    state = sum(v.numpy().nbytes for each in optimizers for v in each.variables)
    return [
        {
            "optimizer": name + (", one for each variable" if apart else ""),
            "parameters": f"{size:.0e}",
            **row,
            "nanoseconds_for_a_parameter": 1e9 * row["seconds"] / size,
            "state_bytes_for_a_parameter": state / size,
            "peak_bytes": peak_bytes() - before,
            "multiply_rate": multiply_rate(),
        }
    ]


SECTIONS = {
    **{
        f"optimizer_{name}_{label}": lambda name=name, size=size: step(name, size)
        for label, size in SIZES.items()
        for name in NAMES
    },
    **{
        f"optimizer_{name}_{label}_apart": lambda name=name, size=SIZES[label]: step(
            name, size, apart=True
        )
        for label in ("1e4", "1e6")
        for name in ("sgd", "meta_lstm")
    },
}
