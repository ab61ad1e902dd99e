"""What the update rule did in a list of episodes: its gates against the update.

Figure 3 of the paper: one coordinate of each layer's weight tensor, drawn at random,
and the forget and input gates that it got in every update of every episode.

    paper    code     shape
    f_t      forget   [E, T, P], at one coordinate a layer [E, L, T]
    i_t      input    [E, T, P], at one coordinate a layer [E, L, T]
    L_t      losses   [E, T]

L counts layers; the other letters are those of `tf_metalstm.episode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_metalstm.adaptation import Trajectory
from tf_metalstm.episode import Support
from tf_metalstm.learners.functional import ParameterBlock
from tf_metalstm.methods.gradient_based import GradientBasedMethod


class Coordinate(NamedTuple):
    """One number of a parameter block.

    layer: the layer that the block belongs to, as "conv_1".
    position: where in the block it is, as "kernel[0, 2, 0, 17]".
    theta_index: where in theta it is.
    """

    layer: str
    position: str
    theta_index: int


class GateCurves(NamedTuple):
    """The gates at one coordinate a layer.

    coordinates: which, L of them.
    forget: forget gates, [E, L, T].
    input: input gates, [E, L, T].
    """

    coordinates: tuple[Coordinate, ...]
    forget: np.ndarray
    input: np.ndarray


def choose_coordinates(blocks: Sequence[ParameterBlock], seed: int = 0) -> tuple[Coordinate, ...]:
    """Draws one coordinate of every weight tensor, in the order of the layers.

    Args:
        blocks: of the learner. Weight tensors are those whose name ends in /kernel; where
            none does, every block gives a coordinate.
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


def trajectory_function(method: GradientBasedMethod) -> Callable[[Support], Trajectory]:
    """Returns the inner loop of one episode as a graph that is traced once per shape."""
    return tf.function(lambda support: method.adapt_with_trajectory(support)[1])


def collect(
    trajectory_of: Callable[[Support], Trajectory], supports: Iterable[Support]
) -> Trajectory:
    """Runs the inner loop on every support set, E of them of the same shape.

    Args:
        trajectory_of: what `trajectory_function` returned.
        supports: of the episodes.

    Returns:
        NumPy arrays: losses [E, T], forget and input gates [E, T, P].
    """
    found = [trajectory_of(support) for support in supports]
    return Trajectory(*(np.stack(parts) for parts in zip(*found, strict=True)))


def curves_at(trajectory: Trajectory, coordinates: Sequence[Coordinate]) -> GateCurves:
    """Picks the gates of some coordinates out of what `collect` returned."""
    indices = [coordinate.theta_index for coordinate in coordinates]
    forget, entry = (
        gates[:, :, indices].transpose(0, 2, 1) for gates in (trajectory.forget, trajectory.input)
    )
    return GateCurves(tuple(coordinates), forget, entry)


def first_supports(episodes: tf.data.Dataset, num_episodes: int) -> list[Support]:
    """Returns the support sets of the first episodes of a stream.

    Args:
        episodes: as `tf_metalstm.data.episodes.episode_dataset` makes them, any E.
        num_episodes: how many; fewer where the stream ends.
    """
    stream = episodes.map(lambda inputs, _: inputs).unbatch().take(num_episodes)
    return [Support(episode["support_inputs"], episode["support_labels"]) for episode in stream]
