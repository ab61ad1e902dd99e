"""Tests which Keras layers have correct second derivatives, and that others are refused."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from layer_table import REPLACED, TABLE, model_of, second_order_error
from tensorflow.python.framework import ops

from tf_metalstm.adaptation import InnerLoop, unroll
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.layers import adaptable
from tf_metalstm.learners.second_order import UNDIFFERENTIABLE, check_second_order
from tf_metalstm.objectives import cross_entropy
from tf_metalstm.problems import SupportProblem
from tf_metalstm.rules.sgd import SGD

L = keras.layers
TOLERANCE = {"float64": 1e-6, "float32": 5e-3}


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling")
@pytest.mark.parametrize("name", TABLE)
def test_the_graph_tells_what_finite_differences_tell(name):
    row = TABLE[name]
    model = model_of(row)
    if row.verdict == "none":
        with pytest.raises(LookupError, match="gradient registry has no entry"):
            second_order_error(model)
    else:
        assert (second_order_error(model) < TOLERANCE[row.dtype]) == (row.verdict == "right")
    if row.verdict == "right":
        check_second_order(model)
    else:
        with pytest.raises(ValueError, match=f"is wrong in .*'{model.layers[2].name}' "):
            check_second_order(model)


@pytest.mark.filterwarnings("ignore:The momentum of")
@pytest.mark.parametrize("name", REPLACED)
def test_what_is_replaced_is_right(name):
    model = adaptable(model_of(TABLE[name]), second_order=True)
    assert second_order_error(model) < TOLERANCE["float64"]
    check_second_order(model)


@pytest.mark.parametrize("operation", UNDIFFERENTIABLE)
def test_the_operations_named_have_no_second_gradient_in_this_tensorflow(operation):
    """If TensorFlow adds such a gradient, remove the line from the table."""
    gradient = operation if operation == "StopGradient" else f"{operation}Grad"
    with contextlib.suppress(LookupError):  # TensorFlow has no entry for it
        assert ops.gradient_registry.lookup(gradient) is None  # not differentiable


def with_normalizations(*normalizations):
    return keras.Sequential(
        [
            L.Input((6,), dtype="float64"),
            L.Dense(8, activation="tanh", dtype="float64"),
            *normalizations,
            L.Dense(2, dtype="float64"),
        ]
    )


def meta_gradient_error(learner):
    """Compares the meta-gradient of two MAML updates along a direction with central differences."""
    generator = np.random.default_rng(3)
    support, queries = (toy.vector_support(num_inputs=6, seed=seed) for seed in (1, 2))
    rule = SGD(0.5, dtype="float64")
    rule.build(learner.parameter_blocks)
    start = generator.normal(0.0, 0.5, learner.num_parameters)
    direction = tf.constant(generator.normal(size=start.shape))

    def query_loss(theta_0):
        loop = InnerLoop(2, second_order=True)
        adapted = unroll(rule, SupportProblem(learner, support), theta_0, loop)
        return cross_entropy(queries.labels, learner.apply(*adapted[:2], queries.inputs, True)[0])

    theta_0 = tf.constant(start)
    with tf.GradientTape() as tape:
        tape.watch(theta_0)
        loss = query_loss(theta_0)
    found = tf.reduce_sum(direction * tape.gradient(loss, theta_0))
    step = 1e-5 * direction
    expected = (query_loss(theta_0 + step) - query_loss(theta_0 - step)) / 2e-5
    return abs(float(found / expected) - 1.0)


@pytest.mark.filterwarnings("ignore:The momentum of")
def test_maml_of_a_keras_model_that_nobody_here_made():
    """One network has BatchNormalization, GroupNormalization and LayerNormalization of Keras."""
    model = with_normalizations(
        L.BatchNormalization(dtype="float64"),
        L.Dense(8, activation="tanh", dtype="float64"),
        L.GroupNormalization(2, dtype="float64"),
        L.Dense(8, activation="tanh", dtype="float64"),
        L.LayerNormalization(dtype="float64"),
    )
    assert meta_gradient_error(FunctionalLearner(model, second_order=True)) < 1e-6


def test_what_first_order_leaves_is_refused_where_the_gradient_is_differentiated():
    learner = FunctionalLearner(
        with_normalizations(L.LayerNormalization(dtype="float64", name="n"))
    )
    assert meta_gradient_error(learner) > 1e-4
    with pytest.raises(ValueError) as refused:
        check_second_order(learner.model)
    assert str(refused.value) == (
        "The second order needs the gradient of a gradient, which is wrong in LayerNormalization "
        f"'n' (tf.stop_gradient or tf.nn.moments) of the learner's model {learner.model.name!r}. "
        "FunctionalLearner(model, second_order=True) replaces the batch, group and layer "
        "normalization of Keras. Replace the other layers, or leave out second_order."
    )


def test_our_networks_are_differentiated_twice():
    check_second_order(conv4((16, 16, 1), 3, 2))


def test_what_no_parameter_reaches_does_no_harm():
    """Images are resized and normalized before the first parameter."""
    model = keras.Sequential(
        [
            L.Input((6, 6, 1)),
            L.Resizing(4, 4),
            L.LayerNormalization(axis=(1, 2), center=False, scale=False),
            L.Flatten(),
            L.Dense(2),
        ]
    )
    check_second_order(model)


class Moments(keras.layers.Layer):
    """A layer that a user may write."""

    def call(self, inputs):
        mean, variance = tf.nn.moments(inputs, [0])
        return (inputs - mean) / tf.sqrt(variance + 1e-3)


class MomentsCell(keras.layers.SimpleRNNCell):
    def call(self, sequence, states, training=False):
        outputs, states = super().call(sequence, states, training)
        return Moments()(outputs), states


def test_layers_of_ones_own_are_looked_at_too():
    """Finds layers in an inner model, in the cell of a loop, and a layer that is used twice."""
    inner = keras.Sequential([L.Input((4,)), Moments(name="mine")])
    model = keras.Sequential([L.Input((6,)), L.Dense(4), inner, L.Dense(2)])
    with pytest.raises(ValueError, match="wrong in Moments 'mine' "):
        check_second_order(model)
    cell = L.RNN(MomentsCell(4), name="loop")
    model = keras.Sequential([L.Input((5, 6)), L.Dense(3), cell, L.Dense(2)])
    with pytest.raises(ValueError, match=r"wrong in .*RNN 'loop' "):
        check_second_order(model)
    twice = keras.Sequential([L.Input((6,)), L.Dense(4), Moments(name="a"), Moments(name="b")])
    with pytest.raises(ValueError, match=r"wrong in Moments 'a' .*, Moments 'b' "):
        check_second_order(twice)


def test_a_subclassed_model_is_looked_at_too():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.norm = L.Dense(4), L.LayerNormalization(name="own_norm")

        def call(self, inputs):
            return self.norm(self.first(inputs))

    model = Own()
    model(np.zeros((2, 5), "float32"))
    with pytest.raises(ValueError, match="LayerNormalization 'own_norm'"):
        check_second_order(model)
