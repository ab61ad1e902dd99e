"""Tests starts that make a row of the last layer for each class, against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.episode import Support
from tf_metalstm.graphs import graph_function
from tf_metalstm.learners.any_way import AnyWayLearner
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.objectives import REGRESSION
from tf_metalstm.options import OptionError
from tf_metalstm.rules.celo import Celo
from tf_metalstm.rules.hierarchical_rnn import HierarchicalRNN
from tf_metalstm.rules.meta_sgd import MetaSGD
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.serving.served import ServedMethod
from tf_metalstm.starts.catalogue import STARTS
from tf_metalstm.starts.prototypes import PrototypeStart
from tf_metalstm.starts.ridge import RidgeStart
from tf_metalstm.starts.shared_head import SharedHead
from tf_metalstm.starts.zero_head import ZeroHead

HEADS = [member for member in STARTS if member.any_way]
NAMES = [member.part.name for member in HEADS]
RULES = {"meta_lstm": toy.lively_rule, "sgd": lambda: SGD(0.1, dtype="float64")}
RULES["meta_sgd"] = lambda: MetaSGD(0.05, 0.2, dtype="float64")

ANY_SUPPORT = Support(tf.TensorSpec([None, 3], tf.float64), tf.TensorSpec([None], tf.int64))


def network(activation="tanh"):
    return mlp((3,), 1, (4,), activation=activation, dtype="float64")


def network_of(last):
    """Makes a network with two features of two inputs, and a last layer."""
    inputs = keras.Input((2,))
    return keras.Model(inputs, last(keras.layers.Dense(2)(inputs)))


def method_of(start, rule="sgd", num_steps=2, **options):
    start = start(dtype="float64") if isinstance(start, type) else start
    learner = start.learner(network(), options.pop("second_order", False))
    return GradientBasedMethod(learner, RULES[rule](), InnerLoop(num_steps), start=start, **options)


def support_of(num_way, num_images=None):
    return toy.vector_support(num_images or 2 * num_way, num_way=num_way)


def features_in_numpy(start, inputs):
    """Returns tanh of the hidden layer of `network`, whose parameters are in c_0."""
    c_0 = start.c_0.numpy()
    return np.tanh(inputs.numpy() @ c_0[:12].reshape(3, 4) + c_0[12:16])


def rows_in_numpy(start, support, num_way):
    features = features_in_numpy(start, support.inputs)
    if start.unit_features:
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    if isinstance(start, RidgeStart):
        inputs = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        penalty = len(features) * np.exp(np.array(start.log_penalty))
        targets = np.eye(num_way)[np.array(support.labels)]
        equations = inputs.T @ inputs + penalty * np.eye(5)
        return np.exp(np.array(start.log_scale)) * np.linalg.solve(equations, inputs.T @ targets).T
    rows = np.zeros((num_way, 5))
    for k in range(num_way):
        mean = np.mean([f for f, y in zip(features, support.labels, strict=True) if y == k], axis=0)
        if isinstance(start, SharedHead):
            rows[k] = start.row.numpy()
        elif isinstance(start, PrototypeStart):
            scale = np.exp(start.log_scale.numpy())
            if start.unit_features:
                rows[k, :4] = scale * mean / np.linalg.norm(mean)
            else:
                rows[k] = [*(2.0 * scale * mean), -scale * np.dot(mean, mean)]
    return rows


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("member", [SharedHead, ZeroHead, PrototypeStart, RidgeStart])
def test_theta_0_is_c_0_and_the_rows_of_the_classes(member, unit):
    start = member(unit_features=unit, dtype="float64")
    learner = start.learner(network())
    start.build(learner)
    support = support_of(3)
    theta_0 = start.theta_0(learner, support, 3).numpy()
    np.testing.assert_array_equal(theta_0[:16], start.c_0)
    np.testing.assert_allclose(
        theta_0[16:].reshape(3, 5), rows_in_numpy(start, support, 3), rtol=1e-9
    )
    features = features_in_numpy(start, support.inputs)
    if unit:
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    logits, _ = learner.apply(theta_0, learner.initial_statistics(), support.inputs, training=False)
    rows = theta_0[16:].reshape(3, 5)
    np.testing.assert_allclose(logits, features @ rows[:, :4].T + rows[:, 4], rtol=1e-12)


def test_prototypes_classify_by_squared_distance_before_the_first_update():
    """The class features are (1, 2) and (3, 0). (1, 1) has squared distances of 1 and 5 to them."""
    learner = AnyWayLearner(network_of(keras.layers.Dense(1)))
    start = PrototypeStart()
    start.build(learner)
    start.c_0.assign([1, 0, 0, 1, 0, 0])  # the first layer returns its inputs
    support = Support(tf.constant([[1.0, 2.0], [3.0, 0.0]]), tf.constant([0, 1]))
    theta_0 = start.theta_0(learner, support, 2)
    np.testing.assert_allclose(theta_0[6:], [2, 4, -5, 6, 0, -9])
    logits, _ = learner.apply(theta_0, tf.zeros([0]), tf.constant([[1.0, 1.0]]), training=False)
    np.testing.assert_allclose(logits, [[2 - 1, 2 - 5]])  # |f|^2 = 2 minus the squared distances


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("member", HEADS, ids=NAMES)
def test_permuted_classes_permute_the_answers_exactly(member, rule):
    method = method_of(member, rule)
    assert method.is_symmetric
    support, queries = support_of(4), toy.vector_support(5, seed=8).inputs
    order = np.array([2, 0, 3, 1])
    other = Support(support.inputs, tf.gather(order, support.labels))
    plain, permuted = (method.query_outputs(method.adapt(s), queries) for s in (support, other))
    np.testing.assert_allclose(permuted.numpy()[:, order], plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("member", HEADS, ids=NAMES)
def test_any_number_of_classes_whatever_the_training_had(member):
    method = method_of(member, training_way=3)
    assert method.num_outputs is None
    queries = toy.vector_support(4).inputs
    adapt = graph_function(method.adapt, input_signature=[ANY_SUPPORT])
    for num_way in (2, 50):
        adapted = adapt(support_of(num_way))
        assert adapted.theta.shape == (16 + 5 * num_way,)
        assert method.query_outputs(adapted, queries).shape == (4, num_way)
    assert method.adapt(support_of(3), training=True).theta.shape == (31,)


def test_without_updates_it_is_the_start_for_any_number_of_classes():
    method = method_of(PrototypeStart, num_steps=0)
    adapt = graph_function(method.adapt, input_signature=[ANY_SUPPORT])
    support = support_of(3)
    expected = method.start.theta_0(method.learner, support, 3)
    np.testing.assert_allclose(adapt(support).theta, expected, rtol=1e-12)


@pytest.mark.parametrize("member", HEADS, ids=NAMES)
def test_it_is_served_for_any_number_of_classes_without_relabellings(member):
    served = ServedMethod(method_of(member), None, (3,), None)
    assert served.relabellings == 1
    support = support_of(7)
    adapted, _ = served.adapt(support.inputs, tf.cast(support.labels, tf.int32), tf.constant(2))
    assert served.answers(adapted, support.inputs).shape == (14, 7)


@pytest.mark.parametrize("unit", [False, True])
def test_the_meta_gradient_flows_through_the_means(unit):
    method = method_of(PrototypeStart(unit_features=unit, dtype="float64"), num_steps=0)
    support, queries = support_of(3), toy.vector_support(6, num_way=3, seed=9)

    def loss():
        outputs = method.query_outputs(method.adapt(support), queries.inputs)
        return method.objective.loss(queries.labels, outputs)

    weights = [method.start.c_0, method.start.log_scale]
    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [weight.value for weight in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        initial = np.array(weight)
        for place in np.ndindex(initial.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = initial.copy()
                moved[place] += step
                weight.assign(moved)
                ends.append(float(loss()))
            weight.assign(initial)
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradient.numpy()[place], abs=1e-7)


def test_meta_sgd_has_one_row_of_rates_for_all_classes():
    method = method_of(PrototypeStart, "meta_sgd")
    theta = tf.range(26.0, dtype=tf.float64)  # theta of two classes
    rates = method.rule.rates(theta, 0).numpy()
    assert method.rule.rate.shape == (21,)
    np.testing.assert_array_equal(rates[:21], method.rule.rate)
    np.testing.assert_array_equal(rates[21:], rates[16:21])


def test_a_rule_of_rows_survives_serialization():
    method = method_of(PrototypeStart, "meta_sgd")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(method.rule))
    assert copy.rates(tf.zeros([26], tf.float64), 0).shape == (26,)


@pytest.mark.parametrize("member", HEADS, ids=NAMES)
def test_a_start_survives_serialization(member):
    start = member(False, 3.0, True)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(start))
    assert copy.get_config() == start.get_config()
    assert (copy.learn_c_0, copy.kernel_scale, copy.unit_features) == (False, 3.0, True)


def test_it_begins_at_the_features_of_a_trained_network():
    trained = NearestNeighbor(mlp((3,), 6, (4,), activation="tanh", dtype="float64"))
    method = method_of(PrototypeStart)
    method.begin(trained)
    kernel, bias = (keras.ops.convert_to_numpy(w) for w in trained.network.weights[:2])
    np.testing.assert_array_equal(method.c_0, [*kernel.ravel(), *bias])


def test_functions_have_no_classes_to_make_rows_for():
    start = ZeroHead(dtype="float64")
    with pytest.raises(OptionError, match=r"^start zero_head makes a row .* use start=c_0"):
        GradientBasedMethod(
            start.learner(network()), SGD(), InnerLoop(1), start=start, objective=REGRESSION
        )


@pytest.mark.parametrize("last", [keras.layers.Dense(2), keras.layers.Dense(1, use_bias=False)])
def test_another_last_layer_is_refused(last):
    with pytest.raises(ValueError, match="is not a linear Dense layer with a bias and one output"):
        AnyWayLearner(network_of(last))


@pytest.mark.parametrize("rule", [HierarchicalRNN, Celo])
def test_a_rule_that_counts_the_coordinates_of_each_tensor_is_refused(rule):
    start = ZeroHead(dtype="float64")
    with pytest.raises(OptionError, match=rf"^rule {rule.part.name} needs a fixed number of param"):
        GradientBasedMethod(start.learner(network()), rule(), InnerLoop(1), start=start)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: RidgeStart(head_penalty=-1.0), "head_penalty"),
        (lambda: RidgeStart(head_scale=0.0), "head_scale"),
        (lambda: PrototypeStart(head_scale=0.0), "head_scale"),
    ],
)
def test_numbers_out_of_range_are_refused(make, name):
    with pytest.raises(OptionError, match=f"^{name} must be a number above 0"):
        make()
