"""Tests the sine wave: the published ranges, points on one wave, a pure function of the number."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.sine import SineOptions, SineTasks
from tf_metalstm.options import OptionError


def episodes(split="train", seed=0, **options):
    return SineTasks(**options).episodes(split, seed)


def test_support_and_queries_lie_on_the_wave_of_their_episode():
    source = episodes(num_shot=4, num_query=6)
    for index in range(5):
        inputs, labels = source(tf.constant(index))
        wave = source.function(tf.constant(index))
        a, w, b = (float(x) for x in wave)
        for x, y in (
            (inputs["support_inputs"], inputs["support_labels"]),
            (inputs["query_inputs"], labels),
        ):
            np.testing.assert_allclose(y, a * np.sin(w * x.numpy() + b), atol=1e-5)
    assert inputs["support_inputs"].shape == inputs["support_labels"].shape == (4, 1)
    assert inputs["query_inputs"].shape == labels.shape == (6, 1)


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({}, [0.1, 1.0, 0.0], [5.0, 1.0, np.pi]),
        (
            {"frequencies": (0.5, 2.0), "phases": (0, 0)},
            [0.1, 0.5, 0.0],
            [5.0, 2.0, 0.0],
        ),
    ],
)
def test_amplitude_frequency_and_phase_fill_their_ranges(options, low, high):
    source = episodes(**options)
    drawn = np.array([[float(x) for x in source.function(tf.constant(i))] for i in range(300)])
    low, high = np.array(low), np.array(high)
    assert np.all(drawn >= low - 1e-6)
    assert np.all(drawn <= high + 1e-6)
    np.testing.assert_allclose(drawn.mean(axis=0), (low + high) / 2, atol=0.08 * 5)
    np.testing.assert_allclose(np.ptp(drawn, axis=0), high - low, rtol=0.05, atol=1e-6)
    x = np.concatenate([source(tf.constant(i))[0]["support_inputs"] for i in range(50)])
    assert x.min() >= -5
    assert x.max() <= 5
    assert np.ptp(x) > 9.5


def test_amplitude_frequency_and_phase_are_drawn_apart():
    source = episodes(frequencies=(0.5, 2.0), phases=(0, 3))
    drawn = np.array([[float(x) for x in source.function(tf.constant(i))] for i in range(300)])
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.2


def test_an_episode_is_a_pure_function_of_seed_split_and_number():
    def first(**options):
        return next(iter(episode_dataset(episodes(**options), num_episodes=1)))[1].numpy()

    assert np.array_equal(first(), first())
    others = [first(seed=1), first(split="test"), first(split="validation")]
    assert not any(np.array_equal(first(), other) for other in others)
    resumed = next(iter(episode_dataset(episodes(), start=3, num_episodes=1)))[1]
    np.testing.assert_array_equal(resumed[0], episodes()(tf.constant(3))[1])


def test_the_fingerprint_tells_lists_apart():
    same = episodes().fingerprint(5)
    assert same == episodes().fingerprint(5)
    different = {
        same,
        episodes().fingerprint(6),
        episodes(seed=1).fingerprint(5),
        episodes(split="test").fingerprint(5),
        episodes(frequencies=(1, 2)).fingerprint(5),
    }
    assert len(different) == 5


def test_the_fingerprint_of_the_data_is_that_of_the_ranges():
    found = [SineTasks(frequencies=(1, high)).data_fingerprint() for high in (2, 2, 3)]
    assert found[0] == found[1] != found[2]


def test_the_waves_are_those_that_all_results_were_measured_on():
    wave = episodes("test", num_shot=4, num_query=6).function(tf.constant(7))
    np.testing.assert_allclose([float(x) for x in wave], [2.794442, 1.0, 2.249321], rtol=1e-6)


def test_tasks_are_those_that_the_options_say():
    options = SineOptions(
        num_shot=3,
        num_query=4,
        training_num_shot=5,
        training_num_query=6,
        sine_frequencies=(0.5, 2.0),
        sine_phases=(0.0, 1.0),
    )
    tasks = SineTasks.from_options(options)
    expected = SineTasks(3, 4, (0.5, 2.0), (0.0, 1.0), 5, 6)
    for training in (False, True):
        one, other = (each.episodes("test", 3, training) for each in (tasks, expected))
        assert one == other
    assert (tasks.spec.num_shot, tasks.training_spec.num_query) == (3, 6)
    assert tasks.facts() == {
        "name": "sine",
        "kind": "functions",
        "objective": "regression",
        "input_shape": [1],
        "num_outputs": 1,
        "training_classes": [],
        "training_way": 1,
        "fingerprint": expected.data_fingerprint(),
    }


@pytest.mark.parametrize("name", ["sine_frequencies", "sine_phases"])
@pytest.mark.parametrize("bounds", [(2.0, 1.0), (1.0,), ()])
def test_bounds_are_two_numbers_the_lower_one_first(name, bounds):
    with pytest.raises(OptionError, match=f"^{name} must be two numbers"):
        SineOptions(**{name: bounds})
