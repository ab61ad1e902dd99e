"""Tests the outer-product LSTM against plain Python in float64, one pair after the other."""

import numpy as np
import oracle
import pytest
import tensorflow as tf
import toy

from tf_metalstm.episode import Support
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.outer_product_lstm import OuterProductLSTM, outer_product_update
from tf_metalstm.options import OptionError

LABELS = [2, 0, 1, 0, 2, 2, 0]
SCALE, STEP = 2.0, 0.4


def method(num_steps=3, **options):
    toy.seed(0)
    network = mlp((3,), 2, (5,), activation="tanh", dtype="float64")
    sizes = {"pair_units": (4, 3), "outer_step": STEP, "logit_scale": SCALE}
    found = OuterProductLSTM(
        embedding_of(network), num_steps=num_steps, dtype="float64", **{**sizes, **options}
    )
    for index, cell in enumerate(found.cells):  # so that the biases are not all alike
        for number, weight in enumerate(cell.weights):
            drawn = np.random.default_rng([index, number]).normal(0.0, 0.7, weight.shape)
            weight.assign(drawn)
    return found


def episode(labels=LABELS, num_queries=4):
    inputs = np.random.default_rng(0).normal(size=(1, len(labels) + num_queries, 3))
    return {
        "support_inputs": tf.constant(inputs[:, : len(labels)]),
        "support_labels": tf.constant([labels]),
        "query_inputs": tf.constant(inputs[:, len(labels) :]),
    }


def with_ones(features):
    features = np.asarray(features, np.float64)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    return np.hstack([features, np.ones((len(features), 1))])


def slow_rows(inputs, labels, layers, num_steps):
    """Returns the last layer after the updates, from prototypes, with loops over all pairs."""
    classes = sorted(set(labels))
    rows = np.zeros((max(labels) + 1, inputs.shape[1]))
    for k in classes:
        mean = inputs[np.equal(labels, k), :-1].mean(axis=0)
        rows[k, :-1] = mean / np.linalg.norm(mean)
    zeros = [[0.0] * (len(bias) // 4) for _, _, bias in layers]
    states = {(i, k): [(z, z) for z in zeros] for i in range(len(labels)) for k in classes}
    for _ in range(num_steps):
        change = np.zeros_like(rows)
        for (i, k), state in states.items():
            seen = [float(labels[i] == k), SCALE * float(inputs[i] @ rows[k])]
            for number, weights in enumerate(layers):
                hidden, cell = oracle.lstm(seen, *state[number], weights)
                state[number], seen = (hidden, cell), hidden
            change[k] += seen[0] * inputs[i]
        lengths = [np.linalg.norm(change[k]) ** 2 for k in classes]
        rows = rows + STEP * change / np.sqrt(np.mean(lengths))
    return rows


@pytest.mark.parametrize("labels", [LABELS, [0, 2, 0]], ids=["3 classes", "a class without images"])
@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_agrees_with_the_oracle(labels, num_steps):
    found, task = method(num_steps), episode(labels)
    layers = [[np.array(weight) for weight in cell.weights] for cell in found.cells]
    support, queries = (
        with_ones(found.embedding(task[f"{name}_inputs"][0])) for name in ("support", "query")
    )
    expected = SCALE * queries @ slow_rows(support, labels, layers, num_steps).T
    present = sorted(set(labels))
    np.testing.assert_allclose(found(task)[0].numpy()[:, present], expected[:, present], rtol=1e-6)


def test_a_case_by_hand():
    """O'X = [[3, 0], [0, 4]] has rows of length 3 and 4; sqrt((9 + 16) / 2) = 5 / sqrt(2)."""
    one = tf.ones([2])
    found = outer_product_update(
        tf.zeros([2, 2]), tf.eye(2), tf.constant([[3.0, 0], [0, 4.0]]), one, 5.0
    )
    np.testing.assert_allclose(found, np.sqrt(2.0) * np.array([[3.0, 0.0], [0.0, 4.0]]), rtol=1e-6)


def test_an_lstm_that_says_nothing_changes_nothing_and_has_a_gradient():
    found = method()
    found.cells[-1].set_weights([np.zeros(weight.shape) for weight in found.cells[-1].weights])
    with tf.GradientTape() as tape:
        outputs = found(episode(), training=True)
        loss = found.training_loss(tf.constant([[0, 1, 2, 1]]), outputs)
    np.testing.assert_allclose(outputs, method(0)(episode()), rtol=1e-9)
    for gradient in tape.gradient(loss, [w.value for w in found.trainable_weights]):
        assert gradient is None or np.all(np.isfinite(gradient))


def test_a_given_number_of_updates_in_a_graph_is_the_same():
    found, task = method(), episode()

    @tf.function
    def adapted(images, labels, number):
        return found.adapt_and_trace(Support(images, labels), number)

    layer, trace = adapted(task["support_inputs"][0], tf.constant(LABELS), tf.constant(2))
    support = Support(task["support_inputs"][0], tf.constant(LABELS))
    np.testing.assert_allclose(layer.rows, method(2).adapt(support).rows, rtol=1e-9)
    np.testing.assert_allclose(trace["losses"], found.adapt_and_trace(support)[1]["losses"][:2])
    assert found.num_updates == 3
    assert method(1, num_evaluation_steps=4).num_updates == 4


@pytest.mark.parametrize("name", ["outer_step", "pair_units"])
def test_refuses_what_cannot_be(name):
    with pytest.raises(OptionError, match=f"^{name} must be "):
        method(**{name: (0,) if name == "pair_units" else 0.0})
