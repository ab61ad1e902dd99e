"""Gate trajectories: which coordinates, and that they are those of the inner loop."""

import numpy as np
import pytest
import toy

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.learners.functional import ParameterBlock
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.visualization.gates import (
    choose_coordinates,
    collect,
    curves_at,
    first_supports,
    trajectory_function,
)

NUM_STEPS = 3


@pytest.fixture(scope="module")
def method():
    rule = toy.lively_rule(dtype="float32")
    return GradientBasedMethod(toy.conv_learner(), rule, InnerLoop(NUM_STEPS))


def episodes(num_episodes, episodes_per_step=1):
    return episode_dataset(
        toy.image_episodes(EpisodeSpec(5, 1, 2), "validation"),
        num_episodes=num_episodes,
        episodes_per_step=episodes_per_step,
    )


def test_one_coordinate_of_each_weight_tensor_in_the_order_of_the_layers():
    blocks = toy.conv_learner().parameter_blocks
    kernels = {block.name: block for block in blocks if block.name.endswith("/kernel")}
    chosen = choose_coordinates(blocks, seed=3)
    assert [c.layer for c in chosen] == ["conv_1", "conv_2", "conv_3", "conv_4", "linear"]
    for coordinate in chosen:
        block = kernels[f"{coordinate.layer}/kernel"]
        assert block.start <= coordinate.theta_index < block.start + block.size


def test_coordinates_repeat_with_the_seed_and_move_with_it():
    blocks = toy.conv_learner().parameter_blocks
    assert choose_coordinates(blocks, seed=3) == choose_coordinates(blocks, seed=3)
    drawn = {choose_coordinates(blocks, seed=seed)[1].theta_index for seed in range(20)}
    assert len(drawn) > 10


def test_the_position_is_that_of_the_coordinate():
    block = ParameterBlock("conv_2/kernel", (3, 3, 4, 5), start=100, size=180)
    (coordinate,) = choose_coordinates([block], seed=1)
    position = tuple(map(int, coordinate.position.removeprefix("kernel[")[:-1].split(", ")))
    values = np.arange(180).reshape(block.shape)
    assert coordinate.theta_index == 100 + values[position]


def test_a_learner_without_kernels_shows_every_block():
    blocks = [ParameterBlock("scale/gamma", (4,), 0, 4), ParameterBlock("offset", (2,), 4, 2)]
    assert [c.layer for c in choose_coordinates(blocks)] == ["scale", "offset"]


def test_curves_are_those_of_the_inner_loop(method):
    coordinates = choose_coordinates(method.learner.parameter_blocks, seed=1)
    supports = first_supports(episodes(4), 3)
    trajectory = collect(trajectory_function(method), supports)
    curves = curves_at(trajectory, coordinates)
    assert curves.forget.shape == curves.input.shape == (3, 5, NUM_STEPS)
    assert trajectory.losses.shape == (3, NUM_STEPS)
    for episode, support in enumerate(supports):
        _, expected = method.adapt_with_trajectory(support)
        np.testing.assert_allclose(trajectory.losses[episode], expected.losses, rtol=1e-5)
        for layer, coordinate in enumerate(coordinates):
            for found, gates in (
                (curves.forget, expected.forget),
                (curves.input, expected.input),
            ):
                column = gates.numpy()[:, coordinate.theta_index]
                np.testing.assert_allclose(found[episode, layer], column, rtol=1e-4)
    # The comparison would say nothing if every gate had the same value.
    for axis in (0, 2):
        assert np.median(np.std(curves.forget, axis=axis)) > 1e-3


def test_supports_are_the_first_ones_however_they_are_grouped():
    one_by_one, in_pairs = first_supports(episodes(4), 3), first_supports(episodes(4, 2), 3)
    assert len(one_by_one) == len(in_pairs) == 3
    for (inputs, _), ((queries, _), other) in zip(
        one_by_one, zip(episodes(4), in_pairs, strict=False), strict=True
    ):
        np.testing.assert_array_equal(inputs, queries["support_inputs"][0])
        np.testing.assert_array_equal(inputs, other.inputs)
    assert len(first_supports(episodes(2), 20)) == 2
