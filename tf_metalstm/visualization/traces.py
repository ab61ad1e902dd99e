"""Traces of a method on a list of tasks: the losses before its updates and the trace of its rule.

Figure 3 of the paper is a trace. It has one random coordinate of each layer's weight tensor, and
its forget and input gates in every update of every episode.

    paper      code                          shape
    L_t        losses                        [E, T]
    f_t, i_t   forget_gates, input_gates     [E, T, P], at one coordinate a layer [E, L, T]

Another rule may have a trace with other names, or none. L is the number of layers;
`tf_metalstm.episode` explains the other letters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.graphs import graph_function
from tf_metalstm.methods.base import LOSSES, Method
from tf_metalstm.parameters import ParameterBlock, is_length_of
from tf_metalstm.rules.base import FORGET_GATES

WEIGHT_DECAY = "weight_decay"
"""Name of 1 - f_t; forget gates near 1 can only be told apart by it."""

Task = Mapping[str, Tensor]


class Coordinate(NamedTuple):
    """One number of a parameter block.

    layer: the layer that the block belongs to, as "conv_1".
    position: position in the block, as "kernel[0, 2, 0, 17]".
    theta_index: position in theta.
    """

    layer: str
    position: str
    theta_index: int


class Curves(NamedTuple):
    """Traces at one coordinate of each layer.

    coordinates: the L coordinates.
    values: name of the trace -> values [E, L, T].
    """

    coordinates: tuple[Coordinate, ...]
    values: dict[str, np.ndarray]


def choose_coordinates(blocks: Sequence[ParameterBlock], seed: int = 0) -> tuple[Coordinate, ...]:
    """Returns one random coordinate of every weight tensor, in the order of the layers.

    Args:
        blocks: blocks of theta. Weight tensors are those whose name ends in /kernel. If there are
            none, every block gives a coordinate.
        seed: the same seed gives the same coordinates.
    """
    kernels = [block for block in blocks if block.name.endswith("/kernel")]
    generator = np.random.default_rng(seed)
    return tuple(
        _coordinate(block, int(generator.integers(block.size))) for block in kernels or blocks
    )


def _coordinate(block: ParameterBlock, offset: int) -> Coordinate:
    layer, _, variable = block.name.rpartition("/")
    inside = ", ".join(str(int(i)) for i in np.unravel_index(offset, block.shape))
    return Coordinate(layer or variable, f"{variable}[{inside}]", block.start + offset)


def trace_function(method: Method) -> Callable[[Task], dict[str, Tensor]]:
    """Returns a function for the trace of one task, whose graph is traced once per shape."""
    return graph_function(method.trace)


def collect(
    trace_of: Callable[[Task], Mapping[str, Tensor]], tasks: Iterable[Task]
) -> dict[str, np.ndarray]:
    """Returns the traces of E tasks of the same shape, name -> [E, T, ...]; {} if there are none.

    Args:
        trace_of: the result of `trace_function`.
        tasks: inputs of the method, each without the leading E.
    """
    traces = [trace_of(task) for task in tasks]
    return {name: np.stack([trace[name] for trace in traces]) for name in traces[0]}


def with_weight_decay(traces: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the traces, with 1 - f_t after the forget gates if there are any."""
    found: dict[str, np.ndarray] = {}
    for name, values in traces.items():
        found[name] = values
        if name == FORGET_GATES:
            found[WEIGHT_DECAY] = 1.0 - values
    return found


def curves_at(
    traces: Mapping[str, np.ndarray], blocks: Sequence[ParameterBlock], seed: int = 0
) -> Curves:
    """Returns one coordinate of each layer from every trace that has a number for each coordinate.

    Args:
        traces: traces from `collect`.
        blocks: blocks of theta.
        seed: seed of `choose_coordinates`.
    """
    coordinates = choose_coordinates(blocks, seed)
    indices = [coordinate.theta_index for coordinate in coordinates]
    return Curves(
        coordinates,
        {
            name: values[:, :, indices].transpose(0, 2, 1)
            for name, values in traces.items()
            if name != LOSSES and values.ndim == 3 and is_length_of(values.shape[-1], tuple(blocks))
        },
    )


def first_tasks(episodes: tf.data.Dataset, num_tasks: int) -> list[dict[str, Any]]:
    """Returns the inputs of a method for the first tasks of a stream, without the leading E.

    Args:
        episodes: a stream of `tf_metalstm.data.episodes.episode_dataset`, with any E.
        num_tasks: number of tasks; there are fewer if the stream ends.
    """
    return list(episodes.map(lambda inputs, _: inputs).unbatch().take(num_tasks))
