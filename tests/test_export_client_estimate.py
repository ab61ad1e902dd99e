"""Tests adapt, check and predict of export/adapt.py, its estimate, and "none of these"."""

import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf
from c_programs import built_cases, call_each
from export_client import FOLDER, client, grpc_client, images, rest, to_lite
from golden import EPISODE, MODEL
from PIL import Image
from servers import Served, grpc_server, rest_server

from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.serving import saved_classifier

SHAPE = (8, 8, 1)
CLASSES = ["ant", "bee", "cat", "dog", "elk", "fox"]


@pytest.fixture(scope="module")
def model(prototypes):
    return prototypes


def write(root, names, number, seed):
    """Writes pictures of classes. Each class is a bright block at its own place."""
    generator = np.random.default_rng(seed)
    for name in names:
        row, column = divmod(len(CLASSES) if name not in CLASSES else CLASSES.index(name), 3)
        for k in range(number):
            pixels = generator.integers(0, 60, SHAPE[:2])
            pixels[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 190
            path = root / name / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write(root / "support", CLASSES, 5, seed=1)
    write(root / "query", [*CLASSES[:3], "none of these"], 6, seed=2)
    return root


def call(capsys, *arguments):
    code = client.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_adapt_save_and_predict(model, folders, tmp_path, capsys):
    common = ["--query", folders / "query", "--none_of_these"]
    code, output, error = call(
        capsys, "--model", model, "--support", folders / "support", *common, "--calibrated",
        "--save", tmp_path / "mine", "--json", tmp_path / "a.json", "--html", tmp_path / "a.html",
    )  # fmt: skip
    assert (code, error) == (0, "")
    lines = output.splitlines()
    assert lines[0] == "Adapted to 30 images of 6 classes."
    assert lines[1].startswith("About 100% of the answers will be right (95 % interval 85% to 100%")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["estimate"]["support_pictures"] == 30
    assert found["estimate_in_words"][0] == lines[1]
    assert lines[1] in (tmp_path / "a.html").read_text()
    foreign = [one["file"] for one in found["images"] if one["predicted"] == "none of these"]
    assert {f"none of these/{k}.png" for k in range(6)} <= set(foreign)
    assert found["accuracy"] >= 0.9

    # A saved classifier gives the same answers and has the same estimate.
    code, output, error = call(
        capsys, "predict", "--classifier", tmp_path / "mine", *common, "--json", tmp_path / "b.json"
    )
    assert (code, error) == (0, "")
    again = json.loads((tmp_path / "b.json").read_text())
    assert again["estimate"] == found["estimate"]
    for one, other in zip(found["images"], again["images"], strict=True):
        assert one["predicted"] == other["predicted"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    saved = tf.saved_model.load(str(tmp_path / "mine")).signatures["predict_encoded"]
    file = (folders / "query/none of these/0.png").read_bytes()
    assert saved(query_images=tf.constant([file]))["none_of_these"].numpy().tolist() == [True]
    sizes = [sum(f.stat().st_size for f in one.rglob("*")) for one in (tmp_path / "mine", model)]
    assert sizes[0] < sizes[1]

    # FewShotClassifier gives the same numbers for the same pictures.
    files = sorted((folders / "support").glob("*/*"))
    classifier = FewShotClassifier(model, calibrated=True).fit(
        files, [f.parent.name for f in files]
    )
    assert classifier.estimate().accuracy == pytest.approx(found["estimate"]["accuracy"])
    queries = sorted((folders / "query").glob("*/*"))
    answers = classifier.predict(queries, none_of_these=0.05)
    assert ["none of these" if a is None else a for a in answers] == [
        one["predicted"] for one in found["images"]
    ]
    rows = [[one["probabilities"][name] for name in CLASSES] for one in found["images"]]
    np.testing.assert_allclose(classifier.predict_proba(queries), rows, atol=2e-3)
    classifier.save(tmp_path / "again")
    saved = tf.saved_model.load(str(tmp_path / "again")).signatures["predict_encoded"]
    answer = saved(query_images=tf.constant([path.read_bytes() for path in queries]))
    np.testing.assert_allclose(answer["probabilities"], rows, atol=2e-3)
    with pytest.raises(FileExistsError, match="again exists already"):
        classifier.save(tmp_path / "again")


@pytest.mark.slow
def test_the_saved_classifier_runs_in_litert(model, folders, tmp_path, capsys):
    """It runs from pixels to names with LiteRT's own operations alone."""
    call(capsys, "--model", model, "--support", folders / "support", "--save", tmp_path / "mine")
    assert to_lite.main(["--model", str(tmp_path / "mine"), "--out", str(tmp_path)]) == 0
    assert "predict.tflite" in capsys.readouterr().out
    assert not (tmp_path / "classify.tflite").exists()
    queries = sorted((folders / "query").glob("*/*"))
    pixels = np.stack([images.read_image(path, SHAPE) for path in queries])
    with warnings.catch_warnings():
        # TensorFlow's interpreter warns that it moves to another package.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_path=str(tmp_path / "predict.tflite"))
    found = interpreter.get_signature_runner("predict")(query_images=pixels)
    saved = tf.saved_model.load(str(tmp_path / "mine")).signatures["predict"]
    expected = saved(query_images=tf.constant(pixels))
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-5)
    for name in ("labels", "none_of_these"):
        assert found[name].tolist() == expected[name].numpy().tolist()


def test_litert_reads_folders_as_the_others_do(model, folders, tmp_path, capsys):
    """Tests its answers, files that are no images, blank pictures, and wrong queries."""
    call(capsys, "--model", model, "--support", folders / "support", "--save", tmp_path / "mine")
    assert to_lite.main(["--model", str(tmp_path / "mine"), "--out", str(tmp_path / "lite")]) == 0
    shutil.copytree(folders / "query", tmp_path / "query")
    (tmp_path / "query/ant/no.png").write_bytes(b"%PDF-1.7")
    Image.new("L", SHAPE[:2]).save(tmp_path / "query/ant/blank.png")
    found = []
    for kind in ("mine", "lite"):
        common = ["predict", "--classifier", tmp_path / kind, "--none_of_these"]
        out = tmp_path / f"{kind}.json"
        capsys.readouterr()
        code, _, errors = call(capsys, *common, "--query", tmp_path / "query", "--json", out)
        assert code == 0
        answers = json.loads(out.read_text())
        found.append(([(i["file"], i["predicted"]) for i in answers["images"]], errors))
        assert "ant/no.png is not a readable image (" in errors
        assert "1 query picture is blank" in errors
        code, _, errors = call(capsys, *common, "--query", tmp_path / "nowhere")
        assert (code, errors) == (
            1,
            f"error: {tmp_path}/nowhere: there is no such file or folder.\n",
        )
    assert found[0] == found[1]
    (tmp_path / "lite/predict.tflite").write_bytes(b"text")
    code, _, errors = call(capsys, *common, "--query", tmp_path / "query")
    assert code == 1
    assert "lite/predict.tflite cannot be loaded" in errors


def by_servers(model, arguments, capsys):
    """Runs the clients of servers. Returns their output."""
    served = Served(model)
    with rest_server(served) as url, grpc_server(served) as address:
        for program, place in ((rest, ["--url", url]), (grpc_client, ["--address", address])):
            program.main([str(one) for one in (*place, "--estimate", *arguments)])
            output, errors = capsys.readouterr()
            yield errors, [line.split("\t")[:2] for line in output.splitlines()]


@pytest.mark.parametrize("by_updates", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_client_says_how_good_it_is_and_none_of_these(
    model, folders, by_updates, tmp_path, tmp_path_factory, capsys
):
    """Compares with adapt.py, for a model that compares features and one that learns by updates."""
    support, query, steps = folders / "support", folders / "query", []
    if by_updates:
        model, support, query = MODEL, EPISODE / "support", EPISODE / "query"
        steps = ["--num_steps", "5"]
    given = ["--support", support, *steps, "--none_of_these", "0.1", "--query", query]
    code, *_ = call(capsys, "--model", model, *given, "--json", tmp_path / "a.json")
    assert code == 0
    expected = json.loads((tmp_path / "a.json").read_text())
    rows = [[str(query / one["file"]), one["predicted"]] for one in expected["images"]]
    assert by_updates or sum(label == "none of these" for _, label in rows) >= 6
    found = list(by_servers(model, given, capsys))
    if shutil.which("cc") and shutil.which("make"):
        flags = ["--estimate", "--none_of_these=0.1", *steps]
        program = built_cases(tmp_path_factory)
        [result] = call_each(program, tmp_path, [[*flags, model, support, query]])
        lines = [line.split("\t")[:2] for line in result.stdout.splitlines()[1:]]
        found.append((result.stderr, lines))
    for said, answers in found:
        assert answers == rows
        assert set(expected["estimate_in_words"]) <= set(said.splitlines())


def test_check_names_what_looks_mislabelled(model, folders, tmp_path, capsys):
    write(tmp_path / "support", CLASSES[:4], 5, seed=3)
    (tmp_path / "support/ant/0.png").rename(tmp_path / "support/bee/stray.png")
    code, output, error = call(
        capsys, "check", "--model", model, "--support", tmp_path / "support",
        "--json", tmp_path / "out.json",
    )  # fmt: skip
    assert (code, error) == (0, "")
    assert "Perhaps in the wrong class: " in output
    assert "bee/stray.png (bee) looks like ant." in output
    assert json.loads((tmp_path / "out.json").read_text())["images"] == []


def test_no_estimate(model, folders, capsys):
    code, output, _ = call(
        capsys, "--model", model, "--support", folders / "support", "--query",
        folders / "query/ant", "--no_estimate",
    )  # fmt: skip
    assert code == 0
    assert "will be right" not in output


def test_a_single_class_is_the_answer_to_everything(model, folders, tmp_path, capsys):
    """All clients answer the same, and warn that such an answer is worth nothing."""
    write(tmp_path / "support", ["ant"], 3, seed=5)
    code, output, error = call(
        capsys,
        "--model",
        model,
        "--support",
        tmp_path / "support",
        "--query",
        folders / "query/bee",
    )
    assert code == 0
    assert "ant is the only class: every picture gets this answer." in error
    assert "cannot be estimated" in output
    assert output.count("100.00%") == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "--classifier", "{model}", "--query", "{q}"], "is no adapted classifier"),
        (["predict", "--query", "{q}"], "arguments are required: --classifier"),
        (["--model", "{model}", "--support", "{s}", "--none_of_these", "5"], "between 0 and 1"),
        (["check", "--model", "{model}"], "arguments are required: --support"),
    ],
)
def test_errors(arguments, said, model, folders, capsys):
    names = {"model": model, "s": folders / "support", "q": folders / "query/ant"}
    try:
        code = client.main([one.format(**names) for one in arguments])
    except SystemExit as exited:  # raised by argparse
        code = exited.code
    assert code in (1, 2)
    assert said in capsys.readouterr().err


def test_the_module_runs_the_client():
    command = [sys.executable, "-m", "tf_metalstm.adapt", "predict", "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--classifier" in result.stdout


def test_clients_save_by_the_same_file():
    """export/ works without the package, so it has a copy of this file."""
    with open(saved_classifier.__file__, "rb") as file:
        assert (FOLDER / "saved_classifier.py").read_bytes() == file.read()
