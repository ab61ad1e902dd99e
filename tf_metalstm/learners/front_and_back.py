"""A network in two parts: layers that stay, and layers that change from task to task.

    network(x) = back(front(x); theta)

The front answers an image once. The back is a function of its parameters theta [P], and takes what
the front returned. It begins at the last place before the first trained layer where a single tensor
carries everything: in a residual network not between a layer and the sum that skips it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.learners.functional import FunctionalLearner, flatten
from tf_metalstm.learners.stateless import statistics_of


class FrontAndBack:
    """The two parts of a network; batch norm always uses the running statistics.

    Args:
        model: a Functional or Sequential model with one input, one output and trainable variables,
            as `adaptable` returns it. The parts share its weights.

    Attributes:
        front: the layers that stay, [B, h, w, c] -> [B, ...]. If the first layer is trained, it
            only returns its input.
        back: the other layers as a function of theta.
    """

    def __init__(self, model: keras.Model) -> None:
        cut = model.input
        for tensor in _cuts(model):
            cut = tensor
        self.front = keras.Model(model.input, cut, name=f"{model.name}_front")
        back = keras.Model(cut, model.output, name=f"{model.name}_back")
        self.back = FunctionalLearner(back)

    def parameters(self) -> Tensor:
        """Returns theta of the network as it is, [P]."""
        return flatten([tf.convert_to_tensor(v) for v in self.back.model.trainable_variables])

    def answer(self, theta: Tensor, features: Tensor) -> Tensor:
        """Returns the outputs of the back at theta [P] for outputs of the front, [B, D]."""
        moments: Any = [tf.convert_to_tensor(v) for v in statistics_of(self.back.model)]
        statistics = flatten(moments) if moments else tf.zeros([0], theta.dtype)
        return self.back.apply(theta, statistics, features, training=False)[0]


def _cuts(model: keras.Model) -> Iterator[keras.KerasTensor]:
    """Yields the tensors before the first trained layer through which everything goes, in order."""
    operations = model.operations
    places = {id(each.output): place for place, each in enumerate(operations)}
    first_inputs = [
        min((places[id(tensor)] for tensor in _inputs(each)), default=place)
        for place, each in enumerate(operations)
    ]
    for place, each in enumerate(operations):
        if isinstance(each, keras.Layer) and each.trainable_variables:
            return
        if min(first_inputs[place + 1 :], default=place) >= place:
            yield each.output


def _inputs(operation: keras.Operation) -> list[keras.KerasTensor]:
    is_input = isinstance(operation, keras.layers.InputLayer)
    return [] if is_input else keras.tree.flatten(operation.input)
