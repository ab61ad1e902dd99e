"""Tests fine-tuning against NumPy in float64 and against a Keras optimizer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.episode import Support
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.fine_tuning import FineTuning, rows_of_update
from tf_metalstm.methods.logistic_regression import LogisticRegression
from tf_metalstm.options import OptionError
from tf_metalstm.rules.classic import Momentum
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.serving.served import ServedMethod
from tf_metalstm.settings import make_settings

LABELS = [2, 0, 1, 0, 2, 2, 0]
RATE, PENALTY = 0.7, 0.3


def embedding(frozen=1, dtype="float64"):
    """Returns a network with layers of 5 and 4 units, of which the first may be frozen."""
    toy.seed(0)
    found = embedding_of(mlp((3,), 1, (5, 4), activation="tanh", dtype=dtype))
    for number in range(frozen):
        found.get_layer(f"hidden_{number + 1}").trainable = False
    return found


def method(rule=None, num_steps=3, frozen=1, dtype="float64", logistic_steps=20, **options):
    rule = SGD(RATE, dtype=dtype) if rule is None else rule
    return FineTuning(
        embedding(frozen, dtype),
        rule,
        InnerLoop(num_steps),
        logistic_penalty=PENALTY,
        logistic_steps=logistic_steps,
        dtype=dtype,
        **options,
    )


def episode(num_queries=4):
    inputs = np.random.default_rng(0).normal(size=(1, len(LABELS) + num_queries, 3))
    return {
        "support_inputs": tf.constant(inputs[:, : len(LABELS)]),
        "support_labels": tf.constant([LABELS]),
        "query_inputs": tf.constant(inputs[:, len(LABELS) :]),
    }


def slow_features(inputs, layers):
    """Returns the features, scaled to length 1, and a one, for each input."""
    found = []
    for x in inputs:
        for kernel, bias in layers:
            x = np.tanh(x @ kernel + bias)
        found.append(np.append(x / np.linalg.norm(x), 1.0))
    return np.array(found)


def slow_loss(features, weights, rows):
    """Returns the mean cross-entropy of the support images with these numbers."""
    losses = []
    for x, label in ((features[row], LABELS[row]) for row in rows):
        logits = x @ weights
        losses.append(np.log(np.sum(np.exp(logits))) - logits[label])
    return np.mean(losses)


def slow_solution(features, penalty):
    """Returns the weights of logistic regression, by many small steps down the gradient."""
    weights, targets = np.zeros((features.shape[1], 3)), np.eye(3)[LABELS]
    for _ in range(3000):
        odds = np.exp(features @ weights)
        wrong = odds / odds.sum(axis=1, keepdims=True) - targets
        weights = weights - 0.1 * (features.T @ wrong + penalty * weights)
    return weights


def slow_logits(task, layers, frozen, batches, tuning_penalty=PENALTY):
    """Returns the logits of the queries; gradients are central differences.

    `batches` has the numbers of the support images of each update.
    """
    support, queries = (task[f"{name}_inputs"][0].numpy() for name in ("support", "query"))
    weights = slow_solution(slow_features(support, layers), tuning_penalty)
    for rows in batches:
        slopes = []
        for values in (values for layer in layers[frozen:] for values in layer):
            slopes.append(np.zeros_like(values))
            for place in np.ndindex(values.shape):
                middle, sides = values[place], []
                for shift in (1e-6, -1e-6):
                    values[place] = middle + shift
                    sides.append(slow_loss(slow_features(support, layers), weights, rows))
                values[place] = middle
                slopes[-1][place] = (sides[0] - sides[1]) / 2e-6
        for values in (values for layer in layers[frozen:] for values in layer):
            values -= RATE * slopes.pop(0)
    weights = slow_solution(slow_features(support, layers), PENALTY)
    return slow_features(queries, layers) @ weights


def layers_of(found):
    return [
        [v.numpy().copy() for v in found.embedding.get_layer(f"hidden_{number}").weights]
        for number in (1, 2)
    ]


@pytest.mark.parametrize("frozen", [0, 1])
def test_agrees_with_the_oracle(frozen):
    found, task = method(num_steps=2, frozen=frozen, logistic_steps=100), episode()
    expected = slow_logits(task, layers_of(found), frozen, 2 * [range(7)])
    np.testing.assert_allclose(found(task)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_batch_size_and_a_penalty_of_their_own_agree_with_the_oracle():
    options = {"support_batch_size": 3, "tuning_penalty": 2.0}
    found, task = method(num_steps=4, logistic_steps=100, **options), episode()
    batches = [rows_of_update(step, tf.constant(LABELS), 3).numpy() for step in range(4)]
    expected = slow_logits(task, layers_of(found), 1, batches, 2.0)
    np.testing.assert_allclose(found(task)[0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found(task, training=True)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "parts"), [(1, 7), (3, 3), (4, 2), (7, 1), (25, 1)])
def test_each_pass_divides_all_images_anew_into_batches_of_like_size(size, parts):
    labels = tf.constant(LABELS)
    batches = [rows_of_update(step, labels, size).numpy() for step in range(2 * parts)]
    passes = [np.concatenate(batches[:parts]), np.concatenate(batches[parts:])]
    assert [sorted(each) for each in passes] == 2 * [list(range(7))]
    assert passes[0].tolist() != passes[1].tolist()
    sizes = [len(each) for each in batches]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_what_is_exported_answers_as_the_method_with_batches():
    toy.seed(0)
    network = embedding_of(mlp((8, 8, 1), 1, (4, 3)))
    network.get_layer("hidden_1").trainable = False
    options = {"support_batch_size": 2, "tuning_penalty": 2.0}
    found = FineTuning(network, SGD(RATE), InnerLoop(3), logistic_steps=5, **options)
    served = ServedMethod(found, Normalization((0.0,), (255.0,)), (8, 8, 1), found.num_outputs)
    images = np.random.default_rng(0).uniform(0.0, 255.0, (9, 8, 8, 1)).astype(np.float32)
    pictures, labels = tf.TensorSpec([None, 8, 8, 1]), tf.TensorSpec([None], tf.int32)
    adapt = tf.function(served.adapt, (pictures, labels), autograph=False)
    probabilities = served.answers(adapt(images[:7], np.int32(LABELS))[0], images[7:])
    pixels = tf.constant(images / 255.0)
    state = found.adapt(Support(pixels[:7], tf.constant(LABELS)))
    logits = found.query_outputs(state, pixels[7:])
    np.testing.assert_allclose(probabilities, tf.nn.softmax(logits), rtol=1e-4)


def test_its_updates_are_those_of_a_keras_optimizer():
    found, task = method(Momentum(0.05, dtype="float64")), episode()
    support = Support(task["support_inputs"][0], tf.constant(LABELS))
    state, trace = found.adapt_and_trace(support)
    network, losses = embedding(), []
    weights = LogisticRegression(network, None, PENALTY, 20, dtype="float64").adapt(support).weights
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    for _ in range(3):
        with tf.GradientTape() as tape:
            features = tf.math.l2_normalize(network(support.inputs), axis=-1)
            logits = features @ weights[:-1] + weights[-1]
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
            loss = tf.reduce_mean(loss)
        losses.append(loss)
        gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
        optimizer.apply(gradients, network.trainable_variables)
    np.testing.assert_allclose(trace["losses"], losses, rtol=1e-5)
    expected = np.concatenate([v.numpy().ravel() for v in network.trainable_variables])
    np.testing.assert_allclose(state.theta, expected, rtol=1e-4)


def test_without_updates_it_is_logistic_regression():
    other = LogisticRegression(embedding(), None, PENALTY, 20, dtype="float64")
    np.testing.assert_allclose(method(num_steps=0)(episode()), other(episode()), rtol=1e-9)


def test_the_layers_that_stay_answer_each_image_once():
    found, task = method(), episode()
    assert found.features_are_frozen
    assert [block.name for block in found.blocks] == ["hidden_2/kernel", "hidden_2/bias"]
    kernel = embedding().get_layer("hidden_1").kernel
    features = found.features(task["support_inputs"][0])
    bias = embedding().get_layer("hidden_1").bias
    np.testing.assert_allclose(features, np.tanh(task["support_inputs"][0] @ kernel + bias))
    state = found.summarize(features, tf.constant(LABELS), 3)
    np.testing.assert_allclose(
        found.compare(state, found.features(task["query_inputs"][0])), found(task)[0], rtol=1e-9
    )


def test_training_and_use_have_numbers_of_updates_of_their_own():
    more, task = method(num_steps=1, num_evaluation_steps=4), episode()
    np.testing.assert_allclose(more(task), method(num_steps=4)(task), rtol=1e-9)
    np.testing.assert_allclose(
        more(task, training=True), method(num_steps=1)(task, training=True), rtol=1e-9
    )


@pytest.mark.parametrize("second_order", [True, False])
def test_the_meta_gradient_of_a_bias(second_order):
    """Compares with finite differences. The first order ignores how the gradient changes."""
    found, task = method(), episode()
    found.inner_loop = InnerLoop(2, second_order)
    bias = found.embedding.get_layer("hidden_2").bias

    def loss():
        return tf.reduce_sum(tf.sin(found(task, training=True)))

    with tf.GradientTape() as tape:
        value = loss()
    slope, before, sides = tape.gradient(value, bias.value)[0], bias.numpy(), []
    for step in (1e-5, -1e-5):
        bias.assign(before + step * np.eye(4)[0])
        sides.append(float(loss()))
    assert (abs(slope - (sides[0] - sides[1]) / 2e-5) < 1e-5) == second_order


def test_refuses_a_network_whose_layers_all_stay():
    with pytest.raises(OptionError, match=r"^learner has no trained layer before"):
        method(frozen=2)


@pytest.mark.parametrize("option", ["support_batch_size", "tuning_penalty"])
def test_refuses_options_out_of_range(option):
    with pytest.raises(OptionError, match=f"^{option} must be"):
        method(**{option: 0})


def test_starts_from_a_run_of_logistic_regression():
    said = {"source": "toys", "normalization": "unit", "num_way": 3, **toy.MLP}
    settings = make_settings({**said, "method": "fine_tuning", "rule": "sgd"})
    tasks = build_tasks(settings)
    found = build_method(resolve(settings, tasks), tasks)
    settings = make_settings({**said, "method": "logistic_regression"})
    trained = build_method(resolve(settings, tasks), tasks)
    for weight in trained.embedding.weights:
        weight.assign(weight + 0.25)
    found.begin(trained)
    for weight, other in zip(found.embedding.weights, trained.embedding.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy())
