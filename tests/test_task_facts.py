"""With RUN_DIR/tasks.json a run is used without its data, with the constants of its training."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import toy
from fresh_run import fresh_run

from tf_metalstm import evaluate, experiment, export, train
from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.construction import build_method, build_tasks
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.sources.base import MissingDataError
from tf_metalstm.flags import read_settings
from tf_metalstm.start import check_pretrained
from tf_metalstm.task_facts import TASKS, facts_of, read_facts, write_facts
from tf_metalstm.training.checkpoints import RunCheckpoints

TRAINED = Normalization((100.0,), (50.0,))  # the constants of the toy source


@pytest.fixture
def run(tmp_path):
    said = {"method": "prototypical_networks", "normalization": "standard", "num_episodes": 2}
    return fresh_run(toy.settings(tmp_path / "run", **said))[0]


def take_away(monkeypatch, *splits):
    """Removes images of these splits from the source, and the numbers computed from them."""
    load = toy.ToySource.load

    def gone(*_):
        raise MissingDataError("the data are not there")

    def load_what_is_left(self, split):
        return gone() if split in splits else load(self, split)

    monkeypatch.setattr(toy.ToySource, "load", load_what_is_left)
    for name in ("prepare", "class_names", "counts", "channel_statistics"):
        monkeypatch.setattr(toy.ToySource, name, gone)


def report_of(run):
    [path] = pathlib.Path(run.run_dir, "evaluation").iterdir()
    return json.loads(path.read_text())


def test_training_keeps_what_there_is_to_know(tmp_path):
    run = toy.settings(tmp_path / "run", normalization="standard", num_steps=1, max_steps=2)
    train.main(run)
    facts = read_facts(run.run_dir)
    assert facts == facts_of(build_tasks(run))
    assert (facts.name, facts.kind, facts.objective) == ("toys", "images", "classification")
    assert (facts.input_shape, facts.num_outputs, facts.training_way) == ((16, 16, 1), 3, 3)
    assert facts.normalization == TRAINED
    assert facts.training_classes == tuple(f"class_{i:02d}" for i in range(8))
    assert facts.num_training_classes == 8


@pytest.mark.usefixtures("unchecked")
def test_a_run_is_exported_and_loaded_without_its_data(run, monkeypatch):
    take_away(monkeypatch, "train", "validation", "test")
    assert experiment.load_run(run).facts.normalization == TRAINED
    export.main(run)
    images = toy.glyph_like_classes().images[::10][:12]
    names = np.repeat(["a", "b", "c", "d"], 3)  # more classes than in training
    of_run, of_export = (
        FewShotClassifier.load(folder).fit(images, names).predict_proba(images)
        for folder in (run.run_dir, pathlib.Path(run.run_dir, "saved_model"))
    )
    np.testing.assert_allclose(of_run, of_export, atol=1e-6)


def test_an_evaluation_reads_its_own_split_alone(run, monkeypatch):
    evaluate.main(run)
    before = report_of(run)
    take_away(monkeypatch, "train", "validation")
    evaluate.main(run)
    assert report_of(run) == before


def test_images_are_normalized_as_in_training_whatever_data_they_are_of(run, monkeypatch):
    evaluate.main(run)
    before = report_of(run)
    other = np.array([10.0]), np.array([20.0])
    monkeypatch.setattr(toy.ToySource, "channel_statistics", lambda self: other)
    assert build_tasks(run).normalization == Normalization((10.0,), (20.0,))
    trained = experiment.load_run(run)
    assert experiment.tasks_of_run(run, trained).normalization == TRAINED
    assert experiment.serve(trained).normalization == TRAINED
    evaluate.main(run)
    assert report_of(run) == before


def test_a_split_that_has_classes_of_the_training_is_refused(run, monkeypatch):
    """As when the user's list has other splits than in the training."""
    names = toy.ToySource.class_names
    exchanged = {"train": "test", "test": "train", "validation": "validation"}
    monkeypatch.setattr(toy.ToySource, "class_names", lambda self, s: names(self, exchanged[s]))
    evaluate.main(run)  # the data are those of the training
    monkeypatch.setattr(toy.ToySource, "fingerprint_of", lambda self, s: f"exchanged {s}")
    evaluate.main(run)  # it was not trained: 0 updates
    method = build_method(run, build_tasks(run))
    RunCheckpoints(run.run_dir, method).save_best(0.5, step=7)
    evaluate.main(run.changed(split="validation"))
    with pytest.raises(
        ValueError, match=r"^8 classes of toys/test were in the training, such as 'class_00': split"
    ):
        evaluate.main(run)
    new = toy.settings(**{"method": "prototypical_networks", "normalization": "standard"})
    with pytest.raises(ValueError, match=r"^pretrained_run_dir=.* cannot be the start: 8 classes"):
        check_pretrained(new, run)


def test_facts_that_a_source_adds_are_kept(run):
    path = pathlib.Path(run.run_dir, TASKS)
    before = read_facts(run.run_dir)
    path.write_text(json.dumps({**json.loads(path.read_text()), "width": 2.5}))
    assert read_facts(run.run_dir) == before


def test_what_else_the_tasks_are_told_is_kept(tmp_path):
    said = {"augmentation": ("flip",), "class_sampling": "permutation", "training_num_shot": 1}
    tasks = build_tasks(toy.settings(tmp_path, **said))
    same = tasks.normalized_by(Normalization((0.0,), (255.0,)))  # the constants of "unit"
    assert same.spec == tasks.spec
    assert same.training_spec == tasks.training_spec != same.spec
    for training in (True, False):
        one, other = (each.episodes("train", 0, training)(3)[0] for each in (tasks, same))
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_run_of_before_wants_its_data_once_more(run, monkeypatch):
    pathlib.Path(run.run_dir, TASKS).unlink()
    assert read_facts(run.run_dir) is None
    assert experiment.load_run(run).facts == facts_of(build_tasks(run))
    evaluate.main(run)
    assert FewShotClassifier.load(run.run_dir)
    take_away(monkeypatch, "train")
    with pytest.raises(MissingDataError, match="the data are not there"):
        experiment.load_run(run)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40],
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
        lambda text: text.replace('"kind"', '"sort"'),
        lambda text: text.replace('"mean"', '"means"'),
        lambda text: json.dumps({**json.loads(text), "input_shape": 16}),
    ],
)
def test_a_damaged_file_is_named(run, damage):
    path = pathlib.Path(run.run_dir, TASKS)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=r"run/tasks\.json is not as train wrote it \(.*undo"):
        experiment.load_run(run)


class Described:
    name = "toys"

    def __init__(self, **facts):
        self._facts = {"name": "toys", "kind": "images", "objective": "classification", **facts}

    def facts(self):
        return self._facts


def test_a_run_keeps_what_it_began_with(tmp_path):
    write_facts(Described(input_shape=[16, 16, 1]), tmp_path)
    before = (tmp_path / TASKS).read_text()
    write_facts(Described(input_shape=[28, 28, 1], fingerprint="a"), tmp_path)
    assert (tmp_path / TASKS).read_text() == before


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    write_facts(Described(fingerprint="a"), tmp_path)
    write_facts(Described(fingerprint="a"), tmp_path)
    write_facts(Described(), tmp_path)  # a source without facts
    with pytest.raises(ValueError, match=r"other data of toys \(fingerprint a, now b\)"):
        write_facts(Described(fingerprint="b"), tmp_path)
    assert read_facts(tmp_path).fingerprint == "a"


def test_images_of_another_size_are_refused(run, monkeypatch):
    trained = experiment.load_run(run)
    facts = dataclasses.replace(trained.facts, input_shape=(28, 28, 1))
    with pytest.raises(
        ValueError,
        match=r"shape \(28, 28, 1\), but inputs of source=toys have the shape \(16, 16, 1\)",
    ):
        experiment.tasks_of_run(read_settings(run.run_dir), trained._replace(facts=facts))
