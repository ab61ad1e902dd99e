"""Tests evaluation: a fixed list, its interval, fewer classes than outputs, a report."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import toy
from fresh_run import fresh_run

from tf_metalstm import evaluate, experiment, train
from tf_metalstm.construction import build_tasks
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.evaluate import describe, finite_or_none, write_report
from tf_metalstm.flags import read_settings
from tf_metalstm.options import OptionError
from tf_metalstm.scoring import episode_scores

pytestmark = pytest.mark.usefixtures("undrawn")


def stream(num_episodes, num_way=5, episodes_per_step=1):
    episodes = toy.image_episodes(EpisodeSpec(num_way, 2, 3), "test", seed=1)
    return episode_dataset(episodes, num_episodes=num_episodes, episodes_per_step=episodes_per_step)


def test_accuracies_are_those_of_the_episodes_one_by_one():
    method = toy.image_method()
    accuracies, num_diverged, _ = episode_scores(method, stream(4))
    assert num_diverged == 0
    expected = []
    for inputs, labels in stream(4):
        answers = np.argmax(method(inputs, training=False), axis=-1)
        expected.append(np.mean(answers == labels.numpy()))
    np.testing.assert_allclose(accuracies, expected)
    in_pairs, *_ = episode_scores(method, stream(4, episodes_per_step=2))
    np.testing.assert_allclose(accuracies, in_pairs)


def test_one_list_of_many_leaves_no_bar_in_a_log(capsys):
    method = toy.image_method(num_steps=0)
    episode_scores(method, stream(2), one_of_many=True)
    assert capsys.readouterr().err == ""
    episode_scores(method, stream(2))
    assert "2/2" in capsys.readouterr().err


def test_with_fewer_ways_only_outputs_in_use_are_answers():
    method = toy.conv_method(num_steps=0)
    bias = method.learner.parameter_blocks[-1]
    start = method.c_0.numpy().copy()
    start[bias.start + 4] = 100.0  # the fifth output would always win
    method.c_0.assign(start)
    assert episode_scores(method, stream(2))[0].mean() == pytest.approx(0.2)
    inputs, _ = next(iter(stream(1, num_way=3)))
    assert np.all(np.argmax(method(inputs, training=True), axis=-1) == 4)
    assert np.all(np.argmax(method(inputs), axis=-1) < 3)
    # Three outputs are in use, so the best of them is right by chance in a third of the cases.
    assert episode_scores(method, stream(4, num_way=3))[0].mean() > 0.2


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
    elsewhere = {**report, "changed": {"source": "folder"}}
    of_two = {write_report({**elsewhere, "data_fingerprint": data}, tmp_path) for data in "ab"}
    assert len(of_two) == 2  # the data of one folder, and of another


def test_a_report_of_many_changes_has_a_name_that_a_disk_takes(tmp_path):
    report = {"split": "test", "task": "5-way", "num_steps": None, "query_normalization": None}
    report |= {"checkpoint": "best", "step": 5, "num_episodes": 2, "evaluation_seed": 0}
    paths = [
        write_report({**report, "changed": {f"option_{i}": "é" * 9 for i in range(n)}}, tmp_path)
        for n in (1, 40, 41)
    ]
    assert paths[0].name == "test_5way_option_0ééééééééé_best5_2episodes_seed0.json"
    assert len(set(paths)) == 3
    assert all(len(path.name.encode()) < 210 for path in paths)


def test_a_method_without_updates_has_chance_level_when_its_head_is_zero():
    method = toy.image_method(num_steps=0)
    toy.zero_head(method)
    accuracies, *_ = episode_scores(method, stream(3))
    np.testing.assert_allclose(accuracies, tf.fill([3], 0.2))  # all answers are the first class


@pytest.mark.parametrize("episodes_per_step", [1, 2])
def test_an_answer_of_logits_that_are_no_numbers_is_wrong(episodes_per_step):
    method = toy.image_method(num_steps=0)
    method.c_0.assign(np.full(method.c_0.shape, np.nan))
    accuracies, num_diverged, _ = episode_scores(method, stream(4, 5, episodes_per_step))
    # The answer is not the fifth output, which would count as class 0.
    np.testing.assert_array_equal(accuracies, np.zeros(4))
    assert num_diverged == 4


def test_a_diverged_episode_is_counted_and_the_report_stays_json(tmp_path):
    report = {"objective": "regression", "score": "mse", "num_episodes": 3, "num_diverged": 1}
    report |= {"source": "sine", "split": "test", "evaluation_seed": 0, "list_fingerprint": "0"}
    report |= {"num_steps": 10, "checkpoint": "best", "step": 5, "batch_norm": "none"}
    report |= {"mean": finite_or_none(float("nan")), "interval": None, "task": "10-shot"}
    report |= {"num_query": 10, "num_way": 1}
    report |= {"query_normalization": "running", "changed": {}}
    text = describe(report)
    assert "task  10-shot, 10 queries, 10 updates" in text
    assert "1 of 3 episodes diverged" in text
    report |= {"objective": "classification", "score": "accuracy", "mean": 0.5, "interval": 0.1}
    report |= {"task": "5-way 1-shot", "num_way": 5, "num_steps": None}
    text = describe(report)
    assert "task  5-way 1-shot, 10 queries a class\n" in text
    assert "accuracy  50.00 +- 10.00 %" in text
    assert "diverged  1 of 3 episodes, counted as wrong" in text
    report["transductive"] = {"mean": 0.6, "interval": None, "batch_norm": "all together"}
    assert "60.00 +- nan %, all together" in describe(report)  # there was one episode
    report |= {"mean": None, "interval": None}
    path = write_report(report, tmp_path)
    assert json.loads(path.read_text(), parse_constant=pytest.fail)["mean"] is None


# Two methods are enough. The contract tests ask every method for other numbers of classes.
ZERO_HEAD = pytest.param("zero_head", marks=pytest.mark.slow)
MATCHING = pytest.param("matching_networks", marks=pytest.mark.slow)
OTHERS = [
    pytest.param(f"{name}_networks", marks=pytest.mark.slow)
    for name in ("prototypical", "siamese", "relation")
]


def evaluated(run_dir, *arguments):
    """Returns the report of an evaluation of a run with other options."""
    folder = pathlib.Path(run_dir, "evaluation")
    before = set(folder.glob("*.json"))
    evaluate.main(read_settings(run_dir, "--num_episodes=3", *arguments))
    [path] = set(folder.glob("*.json")) - before
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    "method", ["nearest_neighbor", "pixel_nearest_neighbor", MATCHING, *OTHERS]
)
def test_a_method_without_outputs_of_its_own_tells_any_number_of_classes_apart(method, tmp_path):
    run, _ = fresh_run(toy.settings(tmp_path, method=method, num_way=3))
    for num_way in (2, 3, 7):
        report = evaluated(run.run_dir, f"--num_way={num_way}")
        assert (report["num_way"], report["task"]) == (num_way, f"{num_way}-way 2-shot")
        assert report["num_diverged"] == 0
        # These classes can be told apart without training, if pixels are compared.
        assert report["mean"] > 1.2 / num_way or method == "relation_networks"


def test_a_learner_has_as_many_outputs_as_it_was_trained_with(tmp_path):
    run, _ = fresh_run(toy.settings(tmp_path, num_way=3, num_steps=1))
    assert evaluated(run.run_dir, "--num_way=2")["num_way"] == 2
    message = r"^num_way is 5 but the learner has 3 outputs: train with more ways, or lower num_way"
    with pytest.raises(OptionError, match=message):
        evaluated(run.run_dir, "--num_way=5")


@pytest.mark.parametrize("method", ["gradient_based", ZERO_HEAD, MATCHING, *OTHERS])
def test_training_with_other_ways_than_are_asked_about(method, tmp_path):
    said = {"rule": "sgd", "num_steps": 1} if method in ("gradient_based", "zero_head") else {}
    if method == "zero_head":
        method, said = "gradient_based", {**said, "start": method}
    sizes = {"num_way": 3, "training_num_way": 5, "training_num_shot": 1, "training_num_query": 2}
    run = toy.settings(tmp_path / "run", method=method, max_steps=2, **sizes, **said)
    inputs, labels = next(iter(experiment.training_episodes(run, build_tasks(run), start=0)))
    assert inputs["support_labels"].shape == [1, 5 * 1]
    assert labels.shape == [1, 5 * 2]
    assert next(iter(experiment.validation_episodes(run, build_tasks(run))))[1].shape == [1, 3 * 3]
    train.main(run)
    assert evaluated(run.run_dir)["task"] == "3-way 2-shot"
    assert evaluated(run.run_dir, "--num_way=5")["task"] == "5-way 2-shot"
    trained = experiment.load_run(read_settings(run.run_dir))
    if method == "gradient_based" and "start" not in said:
        assert trained.method.num_outputs == read_settings(run.run_dir).get("num_outputs") == 5
        with pytest.raises(OptionError, match="num_way is 6 but the learner has 5 outputs"):
            evaluated(run.run_dir, "--num_way=6")
    else:
        assert (trained.method.num_outputs, trained.method.training_way) == (None, 5)
        assert evaluated(run.run_dir, "--num_way=6")["task"] == "6-way 2-shot"


def test_fewer_ways_in_training_than_are_asked_about(tmp_path):
    sizes = {"num_way": 4, "training_num_way": 2}
    run = toy.settings(tmp_path / "run", max_steps=2, rule="sgd", num_steps=1, **sizes)
    train.main(run)
    assert read_settings(run.run_dir).get("num_outputs") == 4
    assert evaluated(run.run_dir)["task"] == "4-way 2-shot"
