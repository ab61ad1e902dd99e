"""Tests the export command: the files that it writes, and the files that it leaves unchanged."""

import json
import pathlib

import numpy as np
import pytest
import toy
from fresh_run import fresh_run
from PIL import Image

from tf_metalstm import export
from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.construction import build_tasks
from tf_metalstm.options import OptionError
from tf_metalstm.rule_folder import read_rule
from tf_metalstm.settings import make_settings
from tf_metalstm.training.provenance import STARTS

NUM_WAY = 3


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns settings of a run with weights, and its sampler of test episodes."""
    monkeypatch.setattr(toy.ToySource, "asked", [])
    said = {"rule": "sgd", "num_steps": 1, "num_way": NUM_WAY}
    settings, _ = fresh_run(toy.settings(tmp_path / "run", **said), step=40)
    settings = settings.changed(example_dir=str(tmp_path / "example"))
    yield settings, build_tasks(settings).sampler("test", seed=0)
    # Example images are from classes that were not used in training.
    assert set(toy.ToySource.asked) == {"test"}


def write_report(run_dir, name, **changes):
    report = {
        "mean": 0.9,
        "task": "3-way 2-shot",
        "interval": 0.01,
        "num_episodes": 600,
        "split": "test",
        "checkpoint": "best",
        "step": 40,
    }
    report |= {"num_way": 3, "num_shot": 2, "num_steps": 1, "query_normalization": "running"}
    path = pathlib.Path(run_dir, "evaluation", f"{name}.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report | {"scores": [0.9]} | changes))


@pytest.mark.usefixtures("unchecked")
def test_a_classifier_of_the_run_is_one_of_its_export(run):
    settings, sampler = run
    export.main(settings)
    images = sampler.classes.images[:12]
    names = np.repeat(["a", "b", "c"], 4)
    of_run, of_export = (
        FewShotClassifier.load(folder).fit(images, names).predict_proba(images)
        for folder in (settings.run_dir, pathlib.Path(settings.run_dir, "saved_model"))
    )
    np.testing.assert_allclose(of_run, of_export, atol=1e-6)


@pytest.mark.usefixtures("untraced")
def test_export_command(run, capsys, tmp_path):
    settings, sampler = run
    write_report(settings.run_dir, "a", mean=0.875)
    write_report(settings.run_dir, "b", split="validation")
    write_report(settings.run_dir, "c", step=39)
    write_report(settings.run_dir, "d", num_steps=2)
    write_report(settings.run_dir, "e", query_normalization="batch")
    write_report(settings.run_dir, "f", interval=None)
    # The export has the best checkpoint, with averaged weights, and not the last one.
    write_report(settings.run_dir, "g", checkpoint="last")
    write_report(settings.run_dir, "h", weights="of another training")
    export.main(settings)
    printed = capsys.readouterr().out
    assert "87.50 +- 1.00 % (3-way 2-shot, 600 test episodes)" in printed

    target = tmp_path / "run" / "saved_model"
    manifest = json.loads((target / "manifest.json").read_text())
    assert [report["mean"] for report in manifest["measured"]] == [0.875]
    assert "scores" not in manifest["measured"][0]
    assert manifest["trained"]["updates"] == 40
    assert manifest["trained"]["num_shot"] == 2
    assert manifest["method_settings"]["learner"] == "mlp"

    drawn, members = (tensor.numpy() for tensor in sampler.sample(0))
    images = sampler.classes.images.reshape(8, 20, 16, 16)
    for number, row in zip(drawn, members, strict=True):
        folder = sampler.classes.class_names[number]
        for path, member in ((f"support/{folder}/001", row[1]), (f"query/{folder}/000", row[2])):
            image = np.asarray(Image.open(tmp_path / "example" / f"{path}.png"))
            np.testing.assert_array_equal(image, images[number, member])
    assert len(toy.files_in(tmp_path / "example")) == NUM_WAY * 5

    found = tmp_path / "run" / "found.flags"
    found.write_text("# --num_evaluation_steps is not set\n--inner_rate=0.01\n")
    export.main(settings)
    assert "It does not use the result of search" not in capsys.readouterr().out
    found.write_text("--inner_rate=0.5\n")

    export.main(settings)  # exported again: the images may stay, the model is new
    printed = capsys.readouterr().out
    assert f"Replaced {target}" in printed
    assert f"It does not use the result of search: for that, add --flagfile={found}." in printed


@pytest.mark.usefixtures("untraced")
def test_the_manifest_says_how_it_was_trained_whatever_is_exported(run):
    settings, _ = run
    starts = [{"commit": "abc1234"}, {"commit": None}, {"commit": "abc1234"}]
    pathlib.Path(settings.run_dir, STARTS).write_text(json.dumps(starts))
    export.main(settings.changed(learner_precision="bfloat16"))
    manifest = json.loads(
        pathlib.Path(settings.run_dir, "saved_model", "manifest.json").read_text()
    )
    assert manifest["method_settings"]["learner_precision"] == "bfloat16"
    assert manifest["trained"]["learner_precision"] == "float32"
    assert manifest["trained"]["commits"] == ["abc1234", "unknown"]


def test_images_of_the_user_are_not_mixed_with_examples(run, tmp_path):
    settings, _ = run
    mine = tmp_path / "example" / "support" / "dog" / "000.png"
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(FileExistsError, match=r"already holds something else .*dog/000\.png"):
        export.main(settings)
    assert toy.files_in(tmp_path / "example") == {"support/dog/000.png"}
    assert not (tmp_path / "run" / "saved_model").exists()


def test_damaged_report_is_named(run):
    settings, _ = run
    write_report(settings.run_dir, "half")
    path = pathlib.Path(settings.run_dir, "evaluation", "half.json")
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match="is not the report that evaluate writes"):
        export.main(settings)


@pytest.mark.usefixtures("untraced")
def test_examples_are_images(tmp_path):
    said = {"source": "sine", "learner": "mlp", "num_steps": 1, "num_shot": 2, "num_query": 3}
    settings, _ = fresh_run(make_settings(said).placed(tmp_path / "run"))
    with pytest.raises(OptionError, match="example_dir is for images, but the source is sine"):
        export.main(settings.changed(example_dir=str(tmp_path / "example")))
    assert not (tmp_path / "example").exists()
    export.main(settings)
    assert (tmp_path / "run" / "saved_model" / "manifest.json").exists()


def test_a_learned_optimizer_is_exported_as_a_folder_with_its_scores(tmp_path, capsys):
    said = {"source": "quadratics", "method": "learned_optimizer", "num_steps": 7}
    said |= {"rule": "meta_lstm", "hidden_units": 3}
    settings, method = fresh_run(make_settings(said).placed(tmp_path / "run"), step=9)
    report = {"split": "test", "checkpoint": "best", "step": 9, "num_steps": 7}
    report |= {"query_normalization": None, "mean": 0.25, "interval": 0.01, "task": "small"}
    report |= {"num_episodes": 100, "scores": [0.1]}
    folder = tmp_path / "run" / "evaluation"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report))
    export.main(settings)
    printed = capsys.readouterr().out
    assert "0.250 +- 0.010 (small, 100 test episodes)" in printed
    assert "after 9 meta-updates on 7 updates" in printed
    read = read_rule(tmp_path / "run" / "optimizer")
    assert read.trained_steps == 7
    assert read.manifest["trained"]["source"] == "quadratics"
    assert "scores" not in read.manifest["measured"][0]
    for one, other in zip(method.rule.weights, read.rule.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    with pytest.raises(OptionError, match="example_dir is for images, and an optimizer has none"):
        export.main(settings.changed(example_dir=str(tmp_path / "example")))
