"""Command-line values reach the objects: splits, seeds, data. For options see test_parts.py."""

import numpy as np
import pytest
import toy

from tf_metalstm import evaluate, train
from tf_metalstm.construction import build_tasks
from tf_metalstm.flags import parse_settings, read_settings


@pytest.fixture
def asked():
    """Returns the splits that were read from the toy source."""
    toy.ToySource.asked.clear()
    return toy.ToySource.asked


class CalledError(Exception):
    """Raised at the point where a training would begin."""


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Returns the arguments that `train` passes to the outer loop."""

    def start(**said):
        given = {}

        def outer_loop(method, training, validation, schedule, *_, **__):
            given.update(method=method, validation=validation)
            given["inputs"] = next(iter(training(0)))[0]
            raise CalledError

        monkeypatch.setattr(train, "train", outer_loop)
        with pytest.raises(CalledError):
            train.main(toy.settings(tmp_path / str(said), **said))
        return given

    return start


def are_of(images, split):
    """Whether all images, divided by 255, are images of a split."""
    known = {image.tobytes() for image in toy.glyph_like_classes(8, seed=len(split)).images}
    pixels = np.round(255.0 * images.numpy()).astype(np.uint8).reshape(-1, 16, 16, 1)
    return all(image.tobytes() in known for image in pixels)


def test_the_seed_is_that_of_the_weights_and_of_the_episodes(started):
    given = [started(seed=seed, max_steps=steps) for seed, steps in ((1, 2), (1, 4), (2, 2))]
    for values in (
        [one["method"].c_0.numpy() for one in given],
        [one["inputs"]["query_inputs"].numpy() for one in given],
    ):
        np.testing.assert_array_equal(values[0], values[1])
        assert np.abs(values[0] - values[2]).max() > 1e-3


@pytest.mark.parametrize("method", ["gradient_based", "nearest_neighbor"])
def test_training_takes_the_classes_of_its_splits(method, started, asked):
    given = started(method=method)
    assert are_of(given["inputs"]["query_inputs"], "train")
    for inputs, _ in given["validation"]():
        assert are_of(inputs["support_inputs"], "validation")
        assert are_of(inputs["query_inputs"], "validation")
    assert set(asked) == {"train", "validation"}


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_evaluate_takes_the_split_that_it_names(split, monkeypatch, asked, tmp_path):
    train.main(toy.settings(tmp_path, rule="sgd", num_steps=1))
    asked.clear()
    seen = []
    scores = evaluate.episode_scores

    def looking(method, stream, **options):
        seen.extend(images for inputs, _ in stream for images in inputs["query_inputs"])
        return scores(method, stream, **options)

    monkeypatch.setattr(evaluate, "episode_scores", looking)
    evaluate.main(read_settings(tmp_path, f"--split={split}", "--num_episodes=2"))
    assert len(seen) == 2
    assert all(are_of(images, split) for images in seen)
    assert set(asked) == {split}


def test_training_and_evaluation_have_sizes_of_their_own(started):
    sizes = {"training_num_way": 5, "training_num_shot": 1, "training_num_query": 4}
    given = started(method="prototypical_networks", **sizes)
    assert given["inputs"]["support_inputs"].shape[:2] == (1, 5 * 1)
    assert given["inputs"]["query_inputs"].shape[:2] == (1, 5 * 4)
    [listed, *_] = [inputs for inputs, _ in given["validation"]()]
    assert listed["support_inputs"].shape[:2] == (1, 3 * 2)
    assert listed["query_inputs"].shape[:2] == (1, 3 * 3)


def test_only_training_is_augmented():
    tasks = build_tasks(toy.settings(augmentation=("flip",)))
    trained, looked_at = (
        tasks.episodes("train", 0, training=training)(0)[0]["query_inputs"]
        for training in (True, False)
    )
    assert are_of(looked_at, "train")
    assert not are_of(trained, "train")
    joint, _ = tasks.joint_batches(64, 0)(0)
    assert not are_of(joint["query_inputs"], "train")


def test_classes_are_consumed_in_permutations_in_training_alone():
    plain, permuted = (
        build_tasks(toy.settings(class_sampling=name)) for name in ("independent", "permutation")
    )
    in_training, fixed = (
        [
            tasks.episodes("train", 0, training=training).fingerprint(5)
            for tasks in (plain, permuted)
        ]
        for training in (True, False)
    )
    assert in_training[0] != in_training[1]
    assert fixed[0] == fixed[1] != in_training[0]


def test_the_normalization_is_the_one_that_was_asked_for():
    for name, expected in (("unit", (0.0, 255.0)), ("standard", (100.0, 50.0))):
        [mean], [deviation] = build_tasks(toy.settings(normalization=name)).normalization
        assert (mean, deviation) == expected


def test_the_ranges_of_the_waves_are_those_of_their_flags():
    said = ("--source=sine", "--learner=mlp", "--sine_frequencies=2,3", "--sine_phases=7,8")
    wave = build_tasks(parse_settings(said)).episodes("test", 0).function(0)
    _, frequency, phase = (float(number) for number in wave)
    assert 2.0 <= frequency <= 3.0
    assert 7.0 <= phase <= 8.0
