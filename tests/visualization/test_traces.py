"""Traces show the right coordinates, with the values of the inner loop."""

import numpy as np
import pytest
import toy

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.methods.base import LOSSES
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.parameters import ParameterBlock
from tf_metalstm.rules.base import FORGET_GATES, INPUT_GATES
from tf_metalstm.visualization.traces import (
    choose_coordinates,
    collect,
    curves_at,
    first_tasks,
    trace_function,
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
    blocks = method.learner.parameter_blocks
    assert method.blocks == blocks
    tasks = first_tasks(episodes(4), 3)
    traces = collect(trace_function(method), tasks)
    curves = curves_at(traces, blocks, seed=1)
    assert curves.coordinates == choose_coordinates(blocks, seed=1)
    assert curves.values.keys() == {FORGET_GATES, INPUT_GATES}
    assert {values.shape for values in curves.values.values()} == {(3, 5, NUM_STEPS)}
    assert traces[LOSSES].shape == (3, NUM_STEPS)
    for episode, task in enumerate(tasks):
        support = toy.Support(task["support_inputs"], task["support_labels"])
        _, expected = method.adapt_and_trace(support)
        np.testing.assert_allclose(traces[LOSSES][episode], expected[LOSSES], rtol=1e-5)
        for layer, coordinate in enumerate(curves.coordinates):
            for name, found in curves.values.items():
                column = expected[name].numpy()[:, coordinate.theta_index]
                np.testing.assert_allclose(found[episode, layer], column, rtol=1e-4)
    # Equal gates would make the comparison pass with wrong values.
    for axis in (0, 2):
        assert np.median(np.std(curves.values[FORGET_GATES], axis=axis)) > 1e-3


def test_what_has_no_number_a_coordinate_makes_no_curve():
    """A trace may have any shape: one number for each update, or a table of another size."""
    blocks = [
        ParameterBlock("linear/kernel", (2, 2), 0, 4),
        ParameterBlock("linear/bias", (2,), 4, 2),
    ]
    rates = np.arange(24.0).reshape(1, 4, 6)
    traces = {
        LOSSES: np.zeros([1, 4]),
        "rates": rates,
        "temperature": np.zeros([1, 4]),
        "by_unit": np.zeros([1, 4, 6, 3]),
        "by_layer": np.zeros([1, 4, 2]),
    }
    curves = curves_at(traces, blocks)
    assert list(curves.values) == ["rates"]
    (coordinate,) = curves.coordinates
    np.testing.assert_array_equal(curves.values["rates"][0, 0], rates[0, :, coordinate.theta_index])


def test_a_method_that_makes_no_updates_shows_nothing():
    method = MatchingNetworks(toy.conv_learner().model, 5)
    assert method.num_updates is None
    assert collect(trace_function(method), first_tasks(episodes(2), 2)) == {}


def test_tasks_are_the_first_ones_however_they_are_grouped():
    one_by_one, in_pairs = first_tasks(episodes(4), 3), first_tasks(episodes(4, 2), 3)
    assert len(one_by_one) == len(in_pairs) == 3
    for task, ((inputs, _), other) in zip(
        one_by_one, zip(episodes(4), in_pairs, strict=False), strict=True
    ):
        assert task.keys() == inputs.keys() == other.keys()
        for name, value in task.items():
            np.testing.assert_array_equal(value, inputs[name][0])
            np.testing.assert_array_equal(value, other[name])
    assert len(first_tasks(episodes(2), 20)) == 2


def test_of_a_free_number_of_classes_the_first_row_is_drawn():
    blocks = [
        ParameterBlock("conv/kernel", (3,), 0, 3),
        ParameterBlock("linear/kernel", (2, 1), 3, 2, per_class=True),
        ParameterBlock("linear/bias", (1,), 5, 1, per_class=True),
    ]
    traces = {"gates": np.zeros((1, 2, 3 + 4 * 3)), "others": np.zeros((1, 2, 3 + 4 * 3 + 1))}
    assert curves_at(traces, blocks).values.keys() == {"gates"}
    assert curves_at(traces, blocks).coordinates[1].theta_index in (3, 4)
