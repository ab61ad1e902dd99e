"""Tests the initial value of c_0, and which part of it is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.options import OptionError
from tf_metalstm.rules.meta_sgd import MetaSGD
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.starts.c_0 import LearnedStart
from tf_metalstm.training.outer_loop import compile_method


def of(learner, **options):
    """Makes gradient descent from the c_0 of a learner."""
    start = LearnedStart(dtype=learner.dtype, **options)
    return GradientBasedMethod(learner, SGD(0.1), InnerLoop(2), start=start)


def test_c_0_starts_at_the_trained_network_but_for_the_linear_layer():
    pretrained = NearestNeighbor(conv4((16, 16, 1), 12, 4))
    for variable in pretrained.network.trainable_variables:
        variable.assign(np.random.default_rng(1).random(variable.shape))
    method = toy.conv_method()
    fresh = method.c_0.numpy().copy()
    method.begin(pretrained)
    learned = {v.path: v.numpy().ravel() for v in pretrained.network.trainable_variables}
    for block in method.learner.parameter_blocks:
        part = slice(block.start, block.start + block.size)
        linear = block.name.startswith("linear")
        np.testing.assert_array_equal(
            method.c_0[part], fresh[part] if linear else learned[block.name]
        )


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            conv4((16, 16, 1), 12, 8),
            r"shape \(3, 3, 1, 8\) for conv_1/kernel, which is \(3, 3, 1, 4\)",
        ),
        (mlp((16, 16, 1), 12, (4,)), "has nothing for conv_1/kernel"),
    ],
)
def test_networks_that_differ_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        toy.conv_method().begin(NearestNeighbor(network))


def test_scaled_kernels_compute_the_same_and_an_update_turns_them_by_less():
    plain, scaled = (of(toy.conv_learner(), kernel_scale=scale) for scale in (1.0, 4.0))
    scaled.c_0.assign(plain.c_0)
    scaled.begin(None)
    images = np.random.default_rng(0).normal(size=(10, 16, 16, 1)).astype(np.float32)
    gradients = []
    for method in (plain, scaled):
        theta = tf.convert_to_tensor(method.c_0)
        with tf.GradientTape() as tape:
            tape.watch(theta)
            logits, _ = method.learner.apply(
                theta, method.learner.initial_statistics(), images, training=True
            )
            loss = tf.reduce_mean(tf.square(logits))
        gradients.append((logits, tape.gradient(loss, theta).numpy()))
    # This is not exact: batch norm adds its epsilon to the variance.
    np.testing.assert_allclose(gradients[0][0], gradients[1][0], rtol=0.1, atol=0.02)
    for block in plain.learner.parameter_blocks:
        part = slice(block.start, block.start + block.size)
        is_kernel = block.name.startswith("conv") and block.name.endswith("kernel")
        factor = 4.0 if is_kernel else 1.0
        np.testing.assert_array_equal(scaled.c_0[part], factor * plain.c_0.numpy()[part])
        if is_kernel:
            norms = [np.linalg.norm(gradient[part]) for _, gradient in gradients]
            assert norms[0] / norms[1] == pytest.approx(4.0, rel=0.25)


def test_a_frozen_c_0_stays_and_the_rule_learns():
    method = toy.conv_method(learn_c_0=False)
    before = [keras.ops.convert_to_numpy(w).copy() for w in method.trainable_weights]
    start = method.c_0.numpy().copy()
    compile_method(method)
    method.fit(episode_dataset(toy.image_episodes(), num_episodes=3), verbose=0, shuffle=False)
    np.testing.assert_array_equal(method.c_0, start)
    assert len(before) == 7
    for one, other in zip(before, method.trainable_weights, strict=True):
        assert np.abs(one - other.numpy()).max() > 1e-4


def test_a_linear_layer_that_is_not_learned_stays_and_the_rest_learns():
    method = toy.conv_method(learn_linear=False)
    start = method.c_0.numpy().copy()
    compile_method(method)
    method.fit(episode_dataset(toy.image_episodes(), num_episodes=3), verbose=0, shuffle=False)
    for block in method.learner.parameter_blocks:
        part = slice(block.start, block.start + block.size)
        moved = np.abs(method.c_0.numpy()[part] - start[part]).max()
        assert (moved == 0.0) == block.name.startswith("linear"), block.name


@pytest.mark.parametrize("hidden_layers", [(), (4,)])
def test_a_last_layer_that_is_everything_cannot_be_left_out(hidden_layers):
    learner = FunctionalLearner(mlp((3,), 2, hidden_layers))
    if hidden_layers:
        method = of(learner, learn_linear=False)
        assert method.learner.num_parameters == 3 * 4 + 4 + 4 * 2 + 2
        return
    with pytest.raises(ValueError, match=r"8 of its 8 parameters: learn_linear=false"):
        of(learner, learn_linear=False)


def test_a_learner_of_one_variable_can_be_adapted():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False)])
    method = GradientBasedMethod(FunctionalLearner(model), SGD(0.1), InnerLoop(1))
    assert method.c_0.shape == (6,)


def test_kernels_are_scaled_after_a_network_was_taken_over():
    """The scale applies to the trained kernels, not to the random initial ones."""
    pretrained = NearestNeighbor(conv4((16, 16, 1), 12, 4))
    method = of(toy.conv_learner(), kernel_scale=2.0)
    method.begin(pretrained)
    block = method.learner.parameter_blocks[0]
    assert block.name == "conv_1/kernel"
    trained = {v.path: v.numpy().ravel() for v in pretrained.network.trainable_variables}
    np.testing.assert_array_equal(
        method.c_0[block.start : block.start + block.size], 2.0 * trained[block.name]
    )


def test_what_another_run_has_learned_is_taken_whole_and_never_scaled():
    trained, method = toy.conv_method(), toy.conv_method()
    for weight in trained.weights:
        weight.assign(np.random.default_rng(2).normal(size=weight.shape))
    method.begin(trained)
    for one, other in zip(trained.weights, method.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    scaled = of(toy.conv_learner(), kernel_scale=2.0)
    with pytest.raises(OptionError, match=r"^kernel_scale is 2, which would scale what the other"):
        scaled.begin(of(toy.conv_learner()))


def test_a_learner_without_convolutions_has_no_kernels_to_scale():
    with pytest.raises(OptionError, match=r"^kernel_scale is for a learner with convolutions"):
        of(toy.mlp_learner(), kernel_scale=2.0).begin(None)
    with pytest.raises(OptionError, match=r"^kernel_scale must be a number above 0, got 0"):
        LearnedStart(kernel_scale=0.0)


@pytest.mark.parametrize("rule", [SGD, MetaSGD])
def test_outputs_of_equal_weights_make_it_symmetric(rule):
    """A symmetric c_0 has equal outputs, and its rule treats all outputs alike."""
    method = toy.conv_method(rule=rule())
    assert not method.is_symmetric
    values = method.c_0.numpy()
    for block in method.learner.last_layer_blocks():
        part = values[block.start : block.start + block.size].reshape(block.shape)
        part[...] = part[..., :1]
    method.c_0.assign(values)
    assert method.start.is_symmetric(method.learner)
    assert method.is_symmetric == (rule is SGD)


def test_survives_serialization():
    start = LearnedStart(False, False, 3.0)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(start))
    assert copy.get_config() == start.get_config()
    assert (copy.learn_c_0, copy.learn_linear, copy.kernel_scale) == (False, False, 3.0)
    assert not copy.built
