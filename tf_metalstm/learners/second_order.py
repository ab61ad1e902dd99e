"""Finds layers of a model that cannot be differentiated twice, by the operations in its graph.

The second order (MAML, Meta-SGD) differentiates the gradient of the support loss. The gradients of
some TensorFlow operations have no gradient, so their part is silently left out. The table compares
the gradients of `tests/layer_table.py` with central differences, mostly in float64, for Keras 3.15
on TensorFlow 2.21 on a processor:

    layer                                     first    second     why
    BatchNormalization                        right    to 2e-1    tf.nn.moments stops the gradient
    GroupNormalization, LayerNormalization    right    to 2e-1    the same
    BatchNormalization(renorm=True)           wrong    wrong      its corrections are held constant
    SpectralNormalization                     wrong    wrong      the same, and it writes its kernel
    bilinear Resizing, UpSampling2D           right    0          ResizeBilinearGrad has no gradient
    other Resizing, UpSampling2D but nearest  right    an error   their gradients have none either
    softsign                                  right    an error   SoftsignGrad has no gradient
    all others                                right    right      to rounding

The others are, for example, dense, convolutional, recurrent and attention layers, pooling, the
other activations, Unit- and RMSNormalization. An operation only counts if its input depends on
parameters: images may be resized before the first parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.graphs import graph_function
from tf_metalstm.learners.layers import input_shape, named
from tf_metalstm.learners.stateless import stateless_call, statistics_of

# Operations whose gradient has no gradient, and the functions that use them.
UNDIFFERENTIABLE = {
    "StopGradient": "tf.stop_gradient or tf.nn.moments",
    "ResizeBilinear": "bilinear resizing",
    "ResizeBicubic": "bicubic resizing",
    "ResizeNearestNeighbor": "resizing to the nearest",
    "ScaleAndTranslate": "Lanczos or antialiased resizing",
    "Softsign": "softsign",
}


def check_second_order(model: keras.Model) -> None:
    """Checks that a second-order meta-gradient of a model is right.

    Args:
        model: a built Keras model with one input; its graph is traced once.

    Raises:
        ValueError: the gradient of some layers cannot be differentiated, or only in part. The error
            names the layers and says what to do.
    """
    layers = dict.fromkeys(
        f"{_owner(model, name)} ({UNDIFFERENTIABLE[operation]})"
        for name, operation in _reached(*_graph(model))
    )
    if layers:
        raise ValueError(
            f"The second order needs the gradient of a gradient, which is wrong in "
            f"{', '.join(layers)} of the learner's model {model.name!r}. "
            "FunctionalLearner(model, second_order=True) replaces the batch, group and layer "
            "normalization of Keras. Replace the other layers, or leave out second_order."
        )


def _graph(model: keras.Model) -> tuple[tf.compat.v1.GraphDef, list[str]]:
    """Returns the graph of a support pass, and the names of the parameters in it."""
    statistics = [tf.constant(keras.ops.convert_to_numpy(v)) for v in statistics_of(model)]
    dtype = model.inputs[0].dtype if getattr(model, "inputs", None) else model.variables[0].dtype

    def outputs(parameters: Any, inputs: Any) -> Any:
        return stateless_call(model, parameters, statistics, inputs, training=True)[0]

    traced = graph_function(outputs).get_concrete_function(
        [tf.TensorSpec(v.shape, v.dtype) for v in model.trainable_variables],
        tf.TensorSpec([None, *input_shape(model)], dtype),
    )
    parameters = [tensor.op.name for tensor in traced.inputs[: len(model.trainable_variables)]]
    return traced.graph.as_graph_def(), parameters


def _reached(graph: Any, parameters: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields name and kind of the operations in `UNDIFFERENTIABLE` that depend on parameters."""
    bodies = {function.signature.name: function.node_def for function in graph.library.function}
    reached = set(parameters)
    for node in graph.node:  # in the order of creation, so inputs come first
        if not any(_operation(name) in reached for name in node.input):
            continue
        reached.add(node.name)
        for operation in _kinds(node, bodies):
            if operation in UNDIFFERENTIABLE:
                yield node.name, operation


def _operation(tensor: str) -> str:
    return tensor.lstrip("^").split(":")[0]


def _kinds(node: Any, bodies: dict[str, Any]) -> Iterator[str]:
    """Yields the kind of an operation and of all operations in the functions that it calls."""
    yield node.op
    for value in node.attr.values():
        for function in (value.func, *value.list.func):
            for inner in bodies.get(function.name, ()):
                yield from _kinds(inner, bodies)


def _owner(model: keras.Model, operation: str) -> str:
    """Returns the layer of an operation: the innermost layer in the path of its name."""
    layers = {layer.name: layer for layer in model._flatten_layers(include_self=False)}
    for scope in reversed(operation.split("/")[:-1] or [operation]):
        # If a scope is opened again, TensorFlow adds a number after the layer's name.
        name = max(
            (x for x in layers if scope == x or scope.startswith(f"{x}_")), key=len, default=""
        )
        if name:
            return named(layers[name])
    return repr(operation)
