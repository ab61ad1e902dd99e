"""What a method shows of a list of tasks: the losses of its updates and the trace of its rule.

Figure 3 of the paper is a trace: one coordinate of each layer's weight tensor, drawn at random, and
the forget and input gates that it got in every update of every episode.

    paper      code                          shape
    L_t        losses                        [E, T]
    f_t, i_t   forget_gates, input_gates     [E, T, P], at one coordinate a layer [E, L, T]

Another rule may show other things under other names, or nothing. L counts layers; the other letters
are those of `tf_metalstm.episode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_metalstm.episode import Tensor
from tf_metalstm.methods.base import LOSSES, Method
from tf_metalstm.parameters import ParameterBlock, num_parameters

Task = Mapping[str, Tensor]


class Coordinate(NamedTuple):
    """One number of a parameter block.

    layer: the layer that the block belongs to, as "conv_1".
    position: where in the block it is, as "kernel[0, 2, 0, 17]".
    theta_index: where in theta it is.
    """

    layer: str
    position: str
    theta_index: int


class Curves(NamedTuple):
    """A trace at one coordinate a layer.

    coordinates: which, L of them.
    values: name -> [E, L, T].
    """

    coordinates: tuple[Coordinate, ...]
    values: dict[str, np.ndarray]


def choose_coordinates(blocks: Sequence[ParameterBlock], seed: int = 0) -> tuple[Coordinate, ...]:
    """Draws one coordinate of every weight tensor, in the order of the layers.

    Args:
        blocks: of theta. Weight tensors are those whose name ends in /kernel; where none does,
            every block gives a coordinate.
        seed: the same seed draws the same coordinates.
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
    """Returns the trace of one task as a graph that is traced once per shape."""
    return tf.function(method.trace)


def collect(
    trace_of: Callable[[Task], Mapping[str, Tensor]], tasks: Iterable[Task]
) -> dict[str, np.ndarray]:
    """Returns the traces of E tasks of the same shape, name -> [E, T, ...]; {} where none is.

    Args:
        trace_of: what `trace_function` returned.
        tasks: each as a method takes it, without the leading E.
    """
    traces = [trace_of(task) for task in tasks]
    return {name: np.stack([trace[name] for trace in traces]) for name in traces[0]}


def curves_at(
    traces: Mapping[str, np.ndarray], blocks: Sequence[ParameterBlock], seed: int = 0
) -> Curves:
    """Picks one coordinate a layer out of every trace that has one number a coordinate.

    Args:
        traces: as `collect` returned them.
        blocks: of theta.
        seed: see `choose_coordinates`.
    """
    coordinates = choose_coordinates(blocks, seed)
    indices = [coordinate.theta_index for coordinate in coordinates]
    size = num_parameters(tuple(blocks))
    return Curves(
        coordinates,
        {
            name: values[:, :, indices].transpose(0, 2, 1)
            for name, values in traces.items()
            if name != LOSSES and values.ndim == 3 and values.shape[-1] == size
        },
    )


def first_tasks(episodes: tf.data.Dataset, num_tasks: int) -> list[dict[str, Any]]:
    """Returns the first tasks of a stream, each as a method takes it, without the leading E.

    Args:
        episodes: as `tf_metalstm.data.episodes.episode_dataset` makes them, any E.
        num_tasks: how many; fewer where the stream ends.
    """
    return list(episodes.map(lambda inputs, _: inputs).unbatch().take(num_tasks))
