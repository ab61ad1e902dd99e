"""Tests accuracy by class and the confusion matrix, by hand and against single episodes."""

import json
import pathlib

import numpy as np
import pytest
import toy
from fresh_run import fresh_run

from tf_metalstm import evaluate
from tf_metalstm.confusion import Confusion
from tf_metalstm.construction import build_tasks
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.flags import read_settings
from tf_metalstm.scoring import episode_scores
from tf_metalstm.visualization.confusion import MOST_CLASSES, confusion_figure

ANT, BEE, CAT, DOG = range(4)


def logits(*answers, num_way=2):
    return np.eye(num_way)[list(answers)] * 3.0


@pytest.fixture
def by_hand():
    """Returns two episodes of two classes with two queries of each.

    ant, bee:  ant -> ant, bee    bee -> bee, bee
    cat, ant:  cat -> cat, ant    ant -> ant, ant
    """
    confusion = Confusion(["ant", "bee", "cat", "dog"])
    labels = np.array([0, 1, 0, 1])
    confusion.add(np.array([ANT, BEE]), labels, logits(0, 1, 1, 1))
    confusion.add(np.array([CAT, ANT]), labels, logits(0, 1, 1, 1))
    return confusion


def test_one_case_by_hand(by_hand):
    np.testing.assert_array_equal(
        by_hand.counts, [[3, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        by_hand.met, [[4, 2, 2, 0], [2, 2, 0, 0], [2, 0, 2, 0], [0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(by_hand.queries, [4, 2, 2, 0])
    nan = np.nan
    np.testing.assert_array_equal(
        by_hand.shares,
        [[0.75, 0.5, 0, nan], [0, 1, nan, nan], [0.5, nan, 0.5, nan], [nan] * 4],
    )
    assert by_hand.hardest_first.tolist() == [CAT, ANT, BEE]
    assert by_hand.report() == {
        "ant": {"queries": 4, "accuracy": 0.75, "taken_for": {"bee": {"answers": 1, "of": 2}}},
        "bee": {"queries": 2, "accuracy": 1.0, "taken_for": {}},
        "cat": {"queries": 2, "accuracy": 0.5, "taken_for": {"ant": {"answers": 1, "of": 2}}},
    }
    assert by_hand.table(2).splitlines() == [
        "class  queries  accuracy  taken for",
        "cat          2     50.0%  ant 50.0%",
        "ant          4     75.0%  bee 50.0%",
        "... and 1 more classes, of higher accuracy",
    ]


def test_outputs_that_are_no_numbers_are_no_answer():
    confusion = Confusion(["ant", "bee"])
    outputs = logits(0, 0)
    outputs[0, 1] = np.nan
    confusion.add(np.array([ANT, BEE]), np.array([0, 0]), outputs)
    np.testing.assert_array_equal(confusion.counts, [[1, 0], [0, 0]])
    assert confusion.shares[ANT, ANT] == 0.5


@pytest.mark.parametrize("number", [3, MOST_CLASSES, MOST_CLASSES + 5])
def test_the_figure_has_the_hardest_classes_in_order(number):
    confusion = Confusion([f"class {i}" for i in range(number)])
    order = np.random.default_rng(0).permutation(number)
    for place, one in enumerate(order):  # p of `number` queries of the class at place p are right
        other = order[place - 1]
        labels = np.zeros(number, int)
        answers = np.where(np.arange(number) < place, 0, 1)
        confusion.add(np.array([one, other]), labels, logits(*answers))
    figure = confusion_figure(confusion, "such")
    axes, bar = figure.axes
    drawn = min(number, MOST_CLASSES)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"class {i}" for i in np.sort(order[:drawn])]
    assert bar.get_ylabel() == "% of the queries in episodes with both classes"
    shown = axes.images[0].get_array()
    place = order.tolist().index(np.sort(order[:drawn])[0])
    assert shown[0, 0] == pytest.approx(100 * place / number)
    assert f"the {drawn} hardest of {number}" in figure.get_supxlabel() or drawn == number


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    said = {"method": "pixel_nearest_neighbor", "num_episodes": 6}
    return fresh_run(toy.settings(tmp_path_factory.mktemp("run"), **said))


def test_counts_are_those_of_the_episodes_one_by_one(run):
    settings, method = run
    episodes = build_tasks(settings).episodes("test", 0)
    seen = []
    episode_scores(
        method,
        episode_dataset(episodes, num_episodes=6, episodes_per_step=2),
        each=lambda labels, outputs: seen.append((labels, outputs)),
    )
    assert len(seen) == 6
    for index, (labels, outputs) in enumerate(seen):
        inputs, expected = episodes(index)
        np.testing.assert_array_equal(labels, expected)
        names = [episodes.sampler.classes.class_names[c] for c in episodes.classes(index)]
        first = np.cumsum(episodes.sampler.classes.class_sizes)
        for label, name in enumerate(names):  # the images are of the class of that name
            number = episodes.sampler.classes.class_names.index(name)
            of_class = episodes.sampler.classes.images[first[number] - 20 : first[number]]
            query = inputs["query_inputs"].numpy()[expected.numpy() == label][0]
            assert np.min(np.abs(of_class / 255.0 - query).max(axis=(1, 2, 3))) < 1e-6
        assert outputs.shape == (len(labels), 3)


def test_evaluate_says_which_classes_are_confused(run, capsys):
    settings, _ = run
    evaluate.main(read_settings(settings.run_dir, "--num_episodes=6"))
    output = capsys.readouterr().out
    [path] = pathlib.Path(settings.run_dir, "evaluation").glob("*.json")
    report = json.loads(path.read_text())
    classes = report["by_class"]
    assert sum(one["queries"] for one in classes.values()) == 6 * 3 * 3
    right = sum(one["queries"] * one["accuracy"] for one in classes.values())
    assert right / (6 * 3 * 3) == pytest.approx(report["mean"], abs=1e-5)
    wrong = sum(t["answers"] for one in classes.values() for t in one["taken_for"].values())
    assert wrong == pytest.approx(6 * 3 * 3 - right, abs=1e-3)
    assert "both classes:\n  class     queries  accuracy  taken for\n  class_" in output
    figure = pathlib.Path(settings.run_dir, "figures", f"confusion_{path.stem}.png")
    assert figure.is_file()
    assert f"Written to {figure}" in output


def test_a_report_divides_shares_a_few_times():
    """A division for each pair of classes took minutes for the classes of Omniglot."""
    calls = []

    class Counting(Confusion):
        @property
        def shares(self):
            calls.append(1)
            return super().shares

    generator, number = np.random.default_rng(0), 30
    confusion = Counting([str(n) for n in range(number)])
    for _ in range(10):
        classes = generator.choice(number, 20, replace=False)
        confusion.add(classes, np.tile(np.arange(20), 5), generator.normal(size=(100, 20)))
    for of_classes in (confusion.report, lambda: confusion.table(5)):
        calls.clear()
        of_classes()
        assert len(calls) <= 3
