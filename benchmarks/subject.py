"""The measured subject: a meta-update of a method on random episodes, and its operations."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.learners.base import PRECISIONS
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.rules.catalogue import RULES
from tf_metalstm.training.outer_loop import compile_method

NUM_WAY = 5


@dataclasses.dataclass(frozen=True)
class Case:
    """The settings of one measurement; all are 5-way."""

    num_shot: int = 5
    num_steps: int = 5
    image_size: int = 84
    episodes_per_step: int = 1
    rule: str = "meta_lstm"
    second_order: bool = False
    filters: int = 32
    num_query: int = 15
    recompute: bool = False
    vectorize: bool = False
    jit_compile: bool = False
    precision: str = "float32"
    deterministic: bool = True  # the default of the commands

    @property
    def image_shape(self):
        return (self.image_size, self.image_size, 3 if self.image_size == 84 else 1)


def build(case):
    """Returns the method, compiled for `fit`."""
    keras.utils.set_random_seed(0)
    if case.deterministic:  # TensorFlow cannot switch this off again in the process
        tf.config.experimental.enable_op_determinism()
    dtype = PRECISIONS[case.precision]
    rule = RULES[case.rule](**({"rate": 0.05} if case.rule == "sgd" else {}))
    method = GradientBasedMethod(
        FunctionalLearner(conv4(case.image_shape, NUM_WAY, case.filters, dtype=dtype)),
        rule,
        InnerLoop(case.num_steps, second_order=case.second_order, recompute=case.recompute),
        query_normalization="support",
        vectorize_episodes=case.vectorize,
    )
    compile_method(method, jit_compile=case.jit_compile)
    return method


def episode(case):
    """Returns random inputs and query labels of one step, with a leading E."""
    generator = np.random.default_rng(0)

    def images(number):
        shape = (case.episodes_per_step, NUM_WAY * number, *case.image_shape)
        return tf.constant(generator.normal(size=shape), tf.float32)

    def labels(number):
        of_episode = np.tile(np.arange(NUM_WAY), number)
        return tf.constant(np.tile(of_episode, (case.episodes_per_step, 1)), tf.int32)

    inputs = {
        "support_inputs": images(case.num_shot),
        "support_labels": labels(case.num_shot),
        "query_inputs": images(case.num_query),
    }
    return inputs, labels(case.num_query)


def update(method, case, dataset=None):
    """Returns a function that makes one meta-update, as `fit` does, and waits for its end.

    It takes its episodes from `dataset`. Without one it always uses the same episode.
    """
    dataset = dataset or tf.data.Dataset.from_tensors(episode(case)).repeat()
    stream = iter(dataset)
    method.make_train_function()
    return lambda: float(method.train_function(stream)["loss"])


def operations(method, case):
    """Returns the number of floating point operations that a first-order meta-update needs.

    There are two for each multiplication of a convolution, a linear layer or the rule. A backward
    pass costs twice its forward pass. Element-wise operations are not counted.
    """
    by_image = 0
    for layer in method.learner.model.layers:
        if hasattr(layer, "kernel"):
            positions = np.prod(layer.output.shape[1:-1], dtype=int)  # 1 for a linear layer
            by_image += 2 * int(np.prod(layer.kernel.shape)) * int(positions)
    support = 3 * by_image * NUM_WAY * case.num_shot * case.num_steps
    query = 3 * by_image * NUM_WAY * case.num_query
    by_coordinate = sum(2 * int(np.prod(w.shape)) for w in method.rule.trainable_variables)
    if case.rule != "meta_lstm":
        by_coordinate = 2
    rule = 3 * by_coordinate * method.learner.num_parameters * case.num_steps
    return case.episodes_per_step * (support + query + rule)
