"""Tests the method: logits, independence of episodes, and two ways of training."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop, unroll
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.base import LOSSES
from tf_metalstm.methods.gradient_based import QUERY_NORMALIZATIONS, GradientBasedMethod
from tf_metalstm.objectives import cross_entropy
from tf_metalstm.options import OptionError
from tf_metalstm.problems import SupportProblem
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.rules.meta_lstm import MetaLSTM
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.starts.prototypes import PrototypeStart
from tf_metalstm.training.optimizer import averaged_weights
from tf_metalstm.training.outer_loop import compile_method


def episodes(num_episodes=1, start=0, spec=None, episodes_per_step=1):
    return episode_dataset(
        toy.image_episodes(spec),
        start=start,
        num_episodes=num_episodes,
        episodes_per_step=episodes_per_step,
    )


def one_step(**arguments):
    return next(iter(episodes(**arguments)))


def test_trainable_weights_are_those_of_the_rule_and_c_0():
    method = toy.conv_method()
    names = sorted(w.path.split("/")[-1] for w in method.trainable_weights)
    assert names == sorted(
        [
            "c_0",
            "kernel",
            "recurrent_kernel",
            "bias",
            "forget_kernel",
            "forget_bias",
            "input_kernel",
            "input_bias",
        ]
    )
    assert method.non_trainable_weights == []
    np.testing.assert_array_equal(method.c_0, method.learner.initial_parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("query_normalization", QUERY_NORMALIZATIONS)
def test_episodes_do_not_touch_each_other(query_normalization, training):
    """The logits of three episodes together equal those of each alone."""
    method = toy.image_method(query_normalization=query_normalization)
    inputs, labels = one_step(num_episodes=3, episodes_per_step=3)
    together = method(inputs, training=training)
    assert together.shape == (3, 15, 5)
    assert labels.shape == (3, 15)
    for i in range(3):
        alone = method({name: x[i : i + 1] for name, x in inputs.items()}, training=training)
        np.testing.assert_allclose(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("query_normalization", QUERY_NORMALIZATIONS)
def test_only_transduction_lets_queries_see_each_other(query_normalization):
    method = toy.image_method(query_normalization=query_normalization)
    inputs, _ = one_step()
    changed = dict(inputs)
    others = toy.noise(*inputs["query_inputs"][:, 1:].shape)
    changed["query_inputs"] = tf.concat([inputs["query_inputs"][:, :1], others], axis=1)
    first, again = (method(x, training=False)[0, 0].numpy() for x in (inputs, changed))
    if query_normalization == "batch":
        assert np.abs(first - again).max() > 1e-4
    else:
        np.testing.assert_allclose(first, again, rtol=1e-5, atol=1e-6)


def test_support_normalization_is_one_more_pass_at_the_last_theta():
    by_running, by_support = (
        toy.conv_method(query_normalization=kind) for kind in ("running", "support")
    )
    by_support.set_weights(by_running.get_weights())
    inputs, _ = one_step()
    support = toy.Support(inputs["support_inputs"][0], inputs["support_labels"][0])
    adapted, better = by_running.adapt(support), by_support.adapt(support)
    np.testing.assert_array_equal(adapted.theta, better.theta)
    _, expected = by_running.learner.apply(*adapted, support.inputs, training=True)
    np.testing.assert_allclose(better.statistics, expected, rtol=1e-6)


def test_statistics_are_carried_on_and_queries_of_meta_training_use_their_own_moments():
    """Compares three updates by gradient descent with a calculation step by step."""
    method = toy.conv_method(num_steps=3, rule=SGD(0.1))
    learner, (inputs, _) = method.learner, one_step()
    images, labels = inputs["support_inputs"][0], inputs["support_labels"][0]
    theta = tf.convert_to_tensor(method.c_0)
    statistics = tf.constant(learner.initial_statistics())
    for _ in range(3):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            logits, statistics = learner.apply(theta, statistics, images, True)
            loss = cross_entropy(labels, logits)
        theta -= 0.1 * tape.gradient(loss, theta)
    adapted = method.adapt(toy.Support(images, labels))
    np.testing.assert_allclose(adapted.theta, theta, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(adapted.statistics, statistics, rtol=1e-3, atol=1e-4)
    for training in (True, False):
        expected, _ = learner.apply(theta, statistics, inputs["query_inputs"][0], training)
        found = method(inputs, training=training)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_steps", [None, 0])
def test_without_any_update_the_running_statistics_are_those_of_the_support_set(num_steps):
    # Else they would be mean 0 and variance 1, the initial values.
    method = toy.conv_method(num_steps=2 if num_steps is not None else 0)
    inputs, _ = one_step()
    support = toy.Support(inputs["support_inputs"][0], inputs["support_labels"][0])
    given = None if num_steps is None else tf.constant(num_steps)
    adapted, _ = method.adapt_and_trace(support, num_steps=given)
    fresh = tf.constant(method.learner.initial_statistics())
    _, expected = method.learner.apply(method.c_0, fresh, support.inputs, training=True)
    np.testing.assert_allclose(adapted.statistics, expected, rtol=1e-6)
    if num_steps is None:
        assert method.describe_normalization() == "inductive (statistics of the support set)"


def test_permuting_the_classes_permutes_the_columns_when_the_head_is_symmetric():
    method = toy.conv_method(num_steps=2)
    toy.zero_head(method)
    inputs, _ = one_step()
    order = np.array([3, 0, 4, 1, 2])
    relabelled = {**inputs, "support_labels": tf.gather(order, inputs["support_labels"])}
    straight, permuted = (method(x, training=False) for x in (inputs, relabelled))
    np.testing.assert_allclose(tf.gather(permuted, order, axis=-1), straight, rtol=1e-4, atol=1e-5)


def test_keras_fit_and_a_plain_loop_give_the_same_weights_after_five_updates():
    methods = [toy.image_method() for _ in range(2)]
    methods[1].set_weights(methods[0].get_weights())
    for method in methods:
        compile_method(method)
    stream = episodes(num_episodes=5)
    methods[0].fit(stream, epochs=1, verbose=0, shuffle=False)
    plain = methods[1]
    optimizer = keras.optimizers.Adam(1e-3, epsilon=1e-8, global_clipnorm=0.25)
    for inputs, labels in stream:
        with tf.GradientTape() as tape:
            logits = plain(inputs, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        optimizer.apply(tape.gradient(loss, plain.trainable_weights), plain.trainable_weights)
    for by_fit, by_hand in zip(*(_comparable_weights(m) for m in methods), strict=True):
        np.testing.assert_allclose(by_fit, by_hand, rtol=2e-4, atol=2e-5)
    assert np.abs(methods[0].c_0 - methods[0].learner.initial_parameters()).max() > 1e-3


def test_mirrored_on_two_devices_equals_one_device():
    """Ten updates of E = 2 on two logical CPUs give the weights, and averages, of one device."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) == 2
    assert toy.image_method().trainable_weights[0].path.endswith("c_0")
    weights = {}
    for name, strategy in (
        ("one", tf.distribute.get_strategy()),
        ("two", tf.distribute.MirroredStrategy(devices)),
    ):
        toy.seed(3)
        with strategy.scope():
            method = toy.image_method(num_steps=1)
            compile_method(method, weight_average=0.8)
        stream = episodes(num_episodes=20, episodes_per_step=2)
        method.fit(stream, epochs=1, verbose=0, shuffle=False)
        weights[name] = _comparable_weights(method)
        with averaged_weights(method):
            averages = _comparable_weights(method)
        assert np.abs(averages[0] - weights[name][0]).max() > 1e-4
        weights[name] += averages
    for one, two in zip(weights["one"], weights["two"], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=2e-5)


def test_loss_and_gradient_of_two_devices_are_those_of_one():
    """Adam hides a wrong factor on the gradient, but its stored moments show it."""
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    losses, moments = [], []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(devices)):
        toy.seed(3)
        with strategy.scope():
            method = toy.image_method(num_steps=1)
            compile_method(method, clip_norm=0.0)
        stream = episodes(num_episodes=2, episodes_per_step=2)
        history = method.fit(stream, epochs=1, verbose=0, shuffle=False, validation_data=stream)
        losses.append([history.history[name][0] for name in ("loss", "val_loss")])
        moments.append([v.numpy() for v in method.optimizer.variables if "momentum" in v.path])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert len(moments[0]) == len(method.trainable_weights)
    for one, two in zip(*moments, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4 * np.abs(one).max())


def _comparable_weights(method):
    """Returns all trainable weights, and c_0 without the biases of hidden layers.

    Batch norm removes the bias before it. So its gradient is zero, and Adam only follows
    the rounding noise, which differs between devices.
    """
    theta, *of_rule = (w.numpy() for w in method.trainable_weights)
    blocks = [
        block
        for block in method.learner.parameter_blocks
        if not (block.name.startswith("hidden") and block.name.endswith("bias"))
    ]
    parts = [theta[block.start : block.start + block.size] for block in blocks]
    return [np.concatenate(parts), *of_rule]


def test_an_unknown_normalization_lists_the_known_ones():
    message = r"^query_normalization must be one of running, support, batch, got 'train'"
    with pytest.raises(OptionError, match=message):
        GradientBasedMethod(toy.conv_learner(), MetaLSTM(4), InnerLoop(1), "train")


def test_what_is_recomputed_is_not_vectorized():
    """Recomputing inside vectorized_map gave a wrong meta-gradient, without any error."""
    with pytest.raises(ValueError, match=r"^recompute does not go with vectorize_episodes"):
        GradientBasedMethod(
            toy.mlp_learner(), toy.lively_rule(), InnerLoop(recompute=True), vectorize_episodes=True
        )


def test_any_number_of_classes_is_not_vectorized():
    start = PrototypeStart()
    learner = start.learner(mlp((3,), 1, (4,)))
    with pytest.raises(ValueError, match=r"^vectorize_episodes needs the same .* start=prototypes"):
        GradientBasedMethod(learner, SGD(0.1), InnerLoop(1), start=start, vectorize_episodes=True)


def test_convolutions_are_not_vectorized():
    with pytest.raises(ValueError, match=r"^vectorize_episodes cannot give .* learner=mlp"):
        GradientBasedMethod(toy.conv_learner(), MetaLSTM(4), InnerLoop(1), vectorize_episodes=True)


@pytest.mark.parametrize("num_steps", [None, 0, 3])
def test_a_trace_is_what_the_inner_loop_did(num_steps):
    method = toy.conv_method(rule=toy.lively_rule(dtype="float32"))
    inputs, _ = one_step()
    episode = {name: value[0] for name, value in inputs.items()}
    support = toy.Support(episode["support_inputs"], episode["support_labels"])
    given = None if num_steps is None else tf.constant(num_steps)
    adapted, trace = method.adapt_and_trace(support, given)
    steps = method.num_updates if num_steps is None else num_steps
    problem = SupportProblem(method.learner, support)
    expected = unroll(method.rule, problem, tf.convert_to_tensor(method.c_0), InnerLoop(steps))
    np.testing.assert_allclose(adapted.theta, expected.theta, rtol=1e-4, atol=1e-6)
    assert trace.keys() == {LOSSES, FORGET_GATES, INPUT_GATES}
    of_loop = {LOSSES: expected.trajectory.losses, **expected.trajectory.traces}
    for name, value in trace.items():
        assert value.shape[0] == steps
        np.testing.assert_allclose(value, of_loop[name], rtol=1e-4, atol=1e-6)
    if num_steps is None:
        whole = method.trace(episode)
        assert whole.keys() == trace.keys()
        for name, value in whole.items():
            np.testing.assert_allclose(value, trace[name], rtol=1e-4, atol=1e-6)


def test_mini_batches_and_divisor_reach_the_problem():
    """The method passes its options to the problem."""
    given = {"batch_size": 4, "gradient_divisor": "batch_size"}
    start = toy.conv_method()
    method = GradientBasedMethod(start.learner, SGD(0.1), InnerLoop(3), start=start.start, **given)
    inputs, _ = one_step()
    support = toy.Support(inputs["support_inputs"][0], inputs["support_labels"][0])
    problem = SupportProblem(method.learner, support, **given)
    expected = unroll(method.rule, problem, tf.convert_to_tensor(method.c_0), InnerLoop(3))
    np.testing.assert_allclose(method.adapt(support).theta, expected.theta, rtol=1e-4, atol=1e-6)
    plain = GradientBasedMethod(start.learner, SGD(0.1), InnerLoop(3), start=start.start)
    assert np.abs(plain.adapt(support).theta - expected.theta).max() > 1e-3
    for bad in ({"batch_size": 0}, {"gradient_divisor": "images"}):
        with pytest.raises(OptionError, match=r"^(support_batch_size|gradient_divisor) must be"):
            GradientBasedMethod(start.learner, SGD(0.1), InnerLoop(3), **bad)


def test_a_class_without_support_images_is_no_answer():
    """Outside training a class without support images has the lowest possible logit."""
    method = toy.conv_method()
    inputs, _ = one_step()
    inputs["support_labels"] = tf.where(inputs["support_labels"] == 2, 3, inputs["support_labels"])
    asked, trained = (method(inputs, training=training)[0].numpy() for training in (False, True))
    lowest = np.finfo(np.float32).min
    assert np.all(asked[:, 2] == lowest)
    assert np.all(np.abs(asked[:, [0, 1, 3, 4]]) < 1e3)
    assert np.all(np.abs(trained) < 1e3)
