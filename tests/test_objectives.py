"""Tests losses, scores and comparisons of each kind of task by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.objectives import CLASSIFICATION, OBJECTIVES, OPTIMIZATION, REGRESSION


def test_classification_by_hand():
    logits = tf.math.log([[[0.7, 0.3], [0.4, 0.6]], [[0.2, 0.8], [0.9, 0.1]]])
    labels = tf.constant([[0, 0], [1, 0]])
    expected = -np.mean(np.log([0.7, 0.4, 0.8, 0.9]))
    np.testing.assert_allclose(CLASSIFICATION.loss(labels, logits), expected, rtol=1e-6)
    np.testing.assert_allclose(CLASSIFICATION.scores(labels, logits), [0.5, 1.0])


def test_regression_by_hand():
    labels = tf.constant([[[1.0], [2.0]], [[0.0], [0.0]]])
    outputs = tf.constant([[[1.0], [4.0]], [[1.0], [1.0]]])
    np.testing.assert_allclose(REGRESSION.loss(labels, outputs), 1.5)
    np.testing.assert_allclose(REGRESSION.scores(labels, outputs), [2.0, 1.0])


def test_optimization_by_hand():
    """Outputs are the losses after each update. Their mean is trained; the last is the score."""
    losses = tf.constant([[4.0, 2.0, 0.5], [8.0, 3.0, 1.0]])
    nothing = tf.zeros([2])
    expected = np.mean([4.0, 2.0, 0.5, 8.0, 3.0, 1.0])
    np.testing.assert_allclose(OPTIMIZATION.loss(nothing, losses), expected, rtol=1e-6)
    np.testing.assert_allclose(OPTIMIZATION.scores(nothing, losses), [0.5, 1.0])
    assert OPTIMIZATION.text(0.5, 0.125) == "0.500 +- 0.125"


def test_objectives_by_name():
    assert OBJECTIVES == {
        "classification": CLASSIFICATION,
        "regression": REGRESSION,
        "optimization": OPTIMIZATION,
    }


@pytest.mark.parametrize(
    ("objective", "good", "bad"),
    [(CLASSIFICATION, 0.9, 0.8), (REGRESSION, 0.8, 0.9), (OPTIMIZATION, 0.8, 0.9)],
)
def test_better(objective, good, bad):
    assert objective.is_better(good, bad)
    assert not objective.is_better(bad, good)
    assert not objective.is_better(good, good)
    assert objective.is_better(bad, float("nan"))  # the first score of a run
