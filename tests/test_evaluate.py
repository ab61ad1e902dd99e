"""Evaluation: a fixed list, the interval of its episodes, fewer ways than outputs, a report."""

import json

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.data.episodes import EpisodeSampler, episode_dataset
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.evaluate import episode_accuracies, write_report

UNIT = Normalization((0.0,), (255.0,))


def sampler(num_way=5):
    return EpisodeSampler(toy.glyph_like_classes(), "test", EpisodeSpec(num_way, 2, 3), seed=1)


def test_accuracies_are_those_of_the_episodes_one_by_one():
    method = toy.conv_method()
    accuracies = episode_accuracies(method, sampler(), UNIT, num_episodes=4)
    expected = []
    for inputs, labels in episode_dataset(sampler(), UNIT, num_episodes=4):
        answers = np.argmax(method(inputs, training=False), axis=-1)
        expected.append(np.mean(answers == labels.numpy()))
    np.testing.assert_allclose(accuracies, expected)
    np.testing.assert_array_equal(
        accuracies, episode_accuracies(method, sampler(), UNIT, num_episodes=4)
    )


def test_with_fewer_ways_only_outputs_in_use_are_answers():
    method = toy.conv_method(num_steps=0)
    bias = method.learner.parameter_blocks[-1]
    start = method.c_0.numpy().copy()
    start[bias.start + 4] = 100.0  # the fifth output would always win
    method.c_0.assign(start)
    assert episode_accuracies(method, sampler(num_way=5), UNIT, 2).mean() == pytest.approx(0.2)
    answers = np.argmax(
        method(next(iter(episode_dataset(sampler(3), UNIT, num_episodes=1)))[0]), axis=-1
    )
    assert np.all(answers == 4)
    # Restricted to the three outputs in use the best of three is right for a third at chance.
    assert episode_accuracies(method, sampler(num_way=3), UNIT, 4).mean() > 0.2


def test_the_report_says_what_was_evaluated_and_keeps_others(tmp_path):
    report = {
        "split": "test",
        "num_way": 5,
        "num_shot": 1,
        "num_steps": 12,
        "query_normalization": "running",
        "checkpoint": "best",
        "num_episodes": 2,
        "evaluation_seed": 0,
        "accuracies": [0.5, 0.75],
    }
    first = write_report(report, tmp_path)
    assert json.loads(first.read_text()) == report
    assert first.name == "test_5way_1shot_12steps_running_best_2episodes_seed0.json"
    second = write_report({**report, "query_normalization": "batch"}, tmp_path)
    assert first.exists()
    assert second != first


def test_a_method_without_updates_has_chance_level_when_its_head_is_zero():
    method = toy.conv_method(num_steps=0)
    head = [b for b in method.learner.parameter_blocks if b.name.startswith("linear")]
    start = method.c_0.numpy().copy()
    for block in head:
        start[block.start : block.start + block.size] = 0.0
    method.c_0.assign(start)
    accuracies = episode_accuracies(method, sampler(), UNIT, 3)
    np.testing.assert_allclose(accuracies, tf.fill([3], 0.2))  # all answers are the first class
