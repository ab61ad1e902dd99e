"""Tests batch norm with the running statistics of the training, for support and queries."""

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.episode import Support
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.options import OptionError
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.starts.prototypes import PrototypeStart


def network(num_outputs=1, momentum=0.75):
    return mlp(
        (3,),
        num_outputs,
        (4,),
        batch_normalization=True,
        statistics_momentum=momentum,
        dtype="float64",
    )


def method_of(momentum=0.75, num_steps=2, **options):
    start = PrototypeStart(dtype="float64")
    return GradientBasedMethod(
        start.learner(network(momentum=momentum)),
        SGD(0.1, dtype="float64"),
        InnerLoop(num_steps),
        start=start,
        training_way=2,
        **{"support_normalization": "training", **options},
    )


def inputs(seed=7):
    support, queries = toy.vector_support(), toy.vector_support(5, seed=seed).inputs
    return {
        "support_inputs": support.inputs[tf.newaxis],
        "support_labels": support.labels[tf.newaxis],
        "query_inputs": queries[tf.newaxis],
    }


def test_every_pass_is_normalized_by_them_and_none_collects_others():
    method = method_of()
    method.statistics.assign([0.5, -0.5, 0.25, 0.0, 4.0, 9.0, 1.0, 0.25])
    support, queries = toy.vector_support(), toy.vector_support(5, seed=8).inputs
    adapted = method.adapt(support)
    np.testing.assert_array_equal(adapted.statistics, method.statistics)
    alone = method.adapt(Support(support.inputs[:2], support.labels[:2]))
    features, _ = method.learner.features(
        method.start.c_0, method.statistics, support.inputs, training=True
    )
    # By hand: one hidden layer, normalized by the statistics, then ReLU.
    kernel, bias, gamma, beta = (np.array(v) for v in method.learner.model.trainable_variables[:4])
    mean, variance = np.split(np.array(method.statistics), 2)
    hidden = support.inputs.numpy() @ kernel + bias
    hidden = gamma * (hidden - mean) / np.sqrt(variance + 1e-3) + beta
    np.testing.assert_allclose(features, np.maximum(hidden, 0.0), rtol=1e-10)
    assert np.abs(alone.theta - adapted.theta).max() > 1e-3
    answers = method.query_outputs(adapted, queries)
    one = method.query_outputs(adapted, queries[:1])
    np.testing.assert_allclose(one, answers[:1], rtol=1e-12)


def test_the_queries_of_training_move_them_by_the_momentum():
    method = method_of(num_steps=0)
    method(inputs(), training=False)
    np.testing.assert_array_equal(method.statistics, [0.0] * 4 + [1.0] * 4)
    method(inputs(), training=True)
    kernel = np.array(method.learner.model.trainable_variables[0])
    hidden = toy.vector_support(5, seed=7).inputs.numpy() @ kernel
    expected = [*(0.25 * hidden.mean(0)), *(0.75 + 0.25 * hidden.var(0, ddof=1))]
    np.testing.assert_allclose(method.statistics, expected, rtol=1e-10)


def test_with_a_momentum_of_1_they_stay():
    method = method_of(momentum=1.0)
    method(inputs(), training=True)
    np.testing.assert_array_equal(method.statistics, [0.0] * 4 + [1.0] * 4)


def test_they_begin_at_those_of_a_trained_network():
    trained = NearestNeighbor(network(num_outputs=6))
    for weight in trained.network.non_trainable_weights:
        weight.assign(np.random.default_rng(3).random(weight.shape))
    method = method_of()
    method.begin(trained)
    expected = [np.array(weight) for weight in trained.network.non_trainable_weights]
    np.testing.assert_array_equal(method.statistics, np.concatenate(expected))
    assert method.keeps_statistics
    assert method.describe_normalization() == "inductive (running statistics of the training)"


def test_a_method_with_them_is_copied_with_them():
    method = method_of()
    method.statistics.assign(np.arange(8.0))
    copy = GradientBasedMethod.from_config(method.get_config())
    copy.begin(method)
    np.testing.assert_array_equal(copy.statistics, np.arange(8.0))
    assert copy.query_normalization is None


def test_what_does_not_go_with_them_is_refused():
    with pytest.raises(OptionError, match=r"^vectorize_episodes does not go with support_norm"):
        method_of(vectorize_episodes=True)
    with pytest.raises(OptionError, match=r"^support_normalization must be one of batch, training"):
        method_of(support_normalization="none")
    learner = FunctionalLearner(mlp((3,), 2, (4,)))
    with pytest.raises(OptionError, match=r"^support_normalization is training, but the learner"):
        GradientBasedMethod(learner, SGD(), InnerLoop(1), support_normalization="training")
