"""Evaluation: a fixed list, the interval of its episodes, fewer ways than outputs, a report."""

import json

import numpy as np
import pytest
import tensorflow as tf
import toy

from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.evaluate import describe, finite_or_none, write_report
from tf_metalstm.scoring import episode_scores


def stream(num_episodes, num_way=5, episodes_per_step=1):
    episodes = toy.image_episodes(EpisodeSpec(num_way, 2, 3), "test", seed=1)
    return episode_dataset(episodes, num_episodes=num_episodes, episodes_per_step=episodes_per_step)


def test_accuracies_are_those_of_the_episodes_one_by_one():
    method = toy.conv_method()
    accuracies, num_diverged = episode_scores(method, stream(4), 5)
    assert num_diverged == 0
    expected = []
    for inputs, labels in stream(4):
        answers = np.argmax(method(inputs, training=False), axis=-1)
        expected.append(np.mean(answers == labels.numpy()))
    np.testing.assert_allclose(accuracies, expected)
    in_pairs, _ = episode_scores(method, stream(4, episodes_per_step=2), 5)
    np.testing.assert_allclose(accuracies, in_pairs)


def test_one_list_of_many_leaves_no_bar_in_a_log(capsys):
    method = toy.conv_method(num_steps=0)
    episode_scores(method, stream(2), 5, one_of_many=True)
    assert capsys.readouterr().err == ""
    episode_scores(method, stream(2), 5)
    assert "2/2" in capsys.readouterr().err


def test_with_fewer_ways_only_outputs_in_use_are_answers():
    method = toy.conv_method(num_steps=0)
    bias = method.learner.parameter_blocks[-1]
    start = method.c_0.numpy().copy()
    start[bias.start + 4] = 100.0  # the fifth output would always win
    method.c_0.assign(start)
    assert episode_scores(method, stream(2), 5)[0].mean() == pytest.approx(0.2)
    answers = np.argmax(method(next(iter(stream(1, num_way=3)))[0]), axis=-1)
    assert np.all(answers == 4)
    # Restricted to the three outputs in use the best of three is right for a third at chance.
    assert episode_scores(method, stream(4, num_way=3), 3)[0].mean() > 0.2


def test_the_report_says_what_was_evaluated_and_keeps_others(tmp_path):
    report = {
        "split": "test",
        "task": "5-way 1-shot",
        "num_query": 15,
        "num_steps": 12,
        "query_normalization": "running",
        "changed": {},
        "checkpoint": "best",
        "step": 5,
        "num_episodes": 2,
        "evaluation_seed": 0,
        "scores": [0.5, 0.75],
    }
    first = write_report(report, tmp_path)
    assert json.loads(first.read_text()) == report
    assert first.name == "test_5way_1shot_15queries_12steps_running_best5_2episodes_seed0.json"
    second = write_report({**report, "query_normalization": "batch"}, tmp_path)
    assert first.exists()
    third = write_report({**report, "changed": {"inner_rate": 0.5}}, tmp_path)
    fourth = write_report({**report, "num_query": 5}, tmp_path)
    assert len({first, second, third, fourth}) == 4


def test_a_method_without_updates_has_chance_level_when_its_head_is_zero():
    method = toy.conv_method(num_steps=0)
    toy.zero_head(method)
    accuracies, _ = episode_scores(method, stream(3), 5)
    np.testing.assert_allclose(accuracies, tf.fill([3], 0.2))  # all answers are the first class


@pytest.mark.parametrize("episodes_per_step", [1, 2])
def test_an_answer_of_logits_that_are_no_numbers_is_wrong(episodes_per_step):
    method = toy.conv_method(num_steps=0)
    method.c_0.assign(np.full(method.c_0.shape, np.nan))
    accuracies, num_diverged = episode_scores(method, stream(4, 5, episodes_per_step), 5)
    np.testing.assert_array_equal(accuracies, np.zeros(4))  # and not the fifth that is class 0
    assert num_diverged == 4


def test_a_diverged_episode_is_counted_and_the_report_stays_json(tmp_path):
    report = {"objective": "regression", "score": "mse", "num_episodes": 3, "num_diverged": 1}
    report |= {"source": "sine", "split": "test", "evaluation_seed": 0, "list_fingerprint": "0"}
    report |= {"num_steps": 10, "checkpoint": "best", "step": 5, "batch_norm": "none"}
    report |= {"mean": finite_or_none(float("nan")), "interval": None, "task": "10-shot"}
    report["num_query"] = 10
    report |= {"query_normalization": "running", "changed": {}}
    text = describe(report, "10-shot, 10 queries")
    assert "1 of 3 episodes diverged" in text
    report |= {"objective": "classification", "score": "accuracy", "mean": 0.5, "interval": 0.1}
    text = describe(report, "5-way 1-shot")
    assert "accuracy  50.00 +- 10.00 %" in text
    assert "diverged  1 of 3 episodes, taken as wrong" in text
    report |= {"mean": None, "interval": None}
    path = write_report(report, tmp_path)
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["mean"] is None
