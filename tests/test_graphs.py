"""Tests that traced functions run as they are written."""

import pytest
import tensorflow as tf

from tf_metalstm.graphs import graph_function, unconverted


def doubled(x):
    return 2 * x


def where_positive(x):
    return x if x > 0 else 0 * x  # a branch of Python, which only AutoGraph can trace


def test_answers_as_the_function():
    assert graph_function(doubled)(tf.constant(3)).numpy() == 6


def test_decorates_with_options():
    @graph_function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def tripled(x):
        return 3 * x

    assert tripled(tf.constant([1, 2])).numpy().tolist() == [3, 6]
    assert tripled.experimental_get_tracing_count() == 1
    with pytest.raises(TypeError):
        tripled(tf.constant(["text"]))


def test_branches_of_python_are_not_rewritten():
    assert tf.function(where_positive)(tf.constant(-2)).numpy() == 0
    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        graph_function(where_positive)(tf.constant(-2))


def test_neither_are_those_of_a_data_set():
    numbers = tf.data.Dataset.range(-1, 2)
    assert list(numbers.map(where_positive).as_numpy_iterator()) == [0, 0, 1]
    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        numbers.map(unconverted(where_positive))
