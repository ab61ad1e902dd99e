"""Tests export/adapt.py in a process without tf_metalstm and Keras, and its errors."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import toy
from export_client import CLIENT, FOLDER, client, images
from export_client import folders as folders_of
from PIL import Image

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.sources.pixels import gray_pixels
from tf_metalstm.serving.served import ServedMethod
from tf_metalstm.serving.signatures import name_keys

NUM_WAY = 4
VALUES = "variables/variables.data-00000-of-00001"

# The package cannot be imported in this process, even if it is installed here.
BARE_PROCESS = """
import runpy, sys
sys.modules["tf_metalstm"] = None
try:
    import tf_metalstm.methods.base
except ImportError:
    sys.argv = sys.argv[1:]
    sys.path.insert(0, sys.argv.pop(0))  # as for any script, the folder that it lies in
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        if "keras" in sys.modules:
            sys.exit("Keras was imported, which takes two seconds")
else:
    sys.exit("tf_metalstm can be imported: this test would prove nothing")
"""


def write_image(path, level, seed, size=(16, 16)):
    generator = np.random.default_rng(seed)
    pixels = np.clip(level + generator.normal(0, 40, size[::-1]), 0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_classes(root, names, number, first_seed=0):
    for i, name in enumerate(names):
        for k in range(number):
            seed = first_seed + 100 * i + k
            write_image(root / name / f"{k}.png", 60 * i, seed, size=(16, 16 + 5 * (k % 2)))


@pytest.fixture(scope="module")
def served():
    toy.seed(3)
    method = toy.image_method(num_steps=2, num_way=NUM_WAY)
    for weight in method.rule.weights:  # an untrained rule hardly moves theta
        if weight.name == "input_bias":
            weight.assign(-1.4)
    served = ServedMethod(method, Normalization((120.0,), (70.0,)), (16, 16, 1), NUM_WAY)
    assert served.relabellings == NUM_WAY
    return served


@pytest.fixture(scope="module")
def model(served, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "saved_model"
    toy.save(served, directory)
    return directory


@pytest.fixture
def folders(tmp_path):
    write_classes(tmp_path / "support", ["ant", "bee", "cat"], 2)
    write_classes(tmp_path / "query", ["ant", "cat"], 3, first_seed=50)
    return tmp_path


def by_method(served, support, queries):
    """Returns probabilities of three of the method's four classes by its ordinary calls.

    c_0 has a different row for each class, so they are the mean over the cyclic relabellings. The
    classes are numbered in the order of the keys of their names.
    """

    def inputs(paths):
        images = [gray_pixels(path.read_bytes(), 16, str(path)) for path in paths]
        return served.normalization(np.stack(images))[tf.newaxis]

    names = sorted({path.parent.name for path in support})
    keys = name_keys(tf.constant(names)).numpy()
    numbers = {name: number for number, name in enumerate(np.array(names)[np.argsort(keys)])}
    labels = np.array([numbers[path.parent.name] for path in support])
    total = 0.0
    for shift in range(NUM_WAY):
        episode = {
            "support_inputs": inputs(support),
            "support_labels": tf.constant([(labels + shift) % NUM_WAY]),
            "query_inputs": inputs(queries),
        }
        every_way = tf.nn.softmax(served.method(episode, training=False)[0]).numpy()
        total += np.roll(every_way, -shift, axis=1) / NUM_WAY
    return total[:, [numbers[name] for name in names]]


def test_same_probabilities_in_a_process_without_the_package(served, model, folders):
    empty = folders / "empty"
    empty.mkdir()
    command = [sys.executable, "-I", "-c", BARE_PROCESS, FOLDER, CLIENT, "--model", model]
    command += ["--support", folders / "support", "--query", folders / "query"]
    command += ["--csv", folders / "out.csv"]
    result = subprocess.run(command, cwd=empty, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""

    with (folders / "out.csv").open(newline="") as opened:
        header, *rows = csv.reader(opened)
    queries = [folders / "query" / row[0] for row in rows]
    support = [
        folders / "support" / name / f"{k}.png" for k in (0, 1) for name in ("ant", "bee", "cat")
    ]
    expected = by_method(served, support, queries)
    best = np.argmax(expected, axis=1)

    assert header == ["file", "predicted", "probability", "ant", "bee", "cat"]
    assert [row[0] for row in rows] == [f"{c}/{k}.png" for c in ("ant", "cat") for k in range(3)]
    np.testing.assert_allclose(np.array([row[3:] for row in rows], float), expected, atol=1e-5)
    np.testing.assert_allclose([float(row[2]) for row in rows], expected.max(axis=1), atol=1e-5)
    assert [row[1] for row in rows] == [header[3 + i] for i in best]
    hits = int(np.sum(best == [0, 0, 0, 2, 2, 2]))
    assert f"({hits} of 6 images)" in result.stdout


def call(capsys, model, folders, *options):
    """Runs the client in this process. Returns its exit code, output and errors."""
    arguments = ["--model", model, "--support", folders / "support", "--query", folders / "query"]
    code = client.main([str(argument) for argument in (*arguments, *options)])
    return code, *capsys.readouterr()


def test_flat_folder_in_small_chunks(served, model, folders, capsys, monkeypatch):
    shutil.rmtree(folders / "query")
    for k in range(5):
        write_image(folders / "query" / f"{k}.png", 40 * k, seed=70 + k)
    (folders / "query" / ".DS_Store").touch()
    code, at_once, _ = call(capsys, model, folders)
    assert code == 0
    assert [line.split()[0] for line in at_once.splitlines()[2:]] == [
        "file",
        *(f"{k}.png" for k in range(5)),
    ]
    assert "accuracy" not in at_once
    monkeypatch.setattr(client, "_QUERIES_AT_A_TIME", 2)
    code, in_chunks, left = call(capsys, model, folders)
    assert (code, in_chunks) == (0, at_once)
    assert left == f"left out: {folders / 'query/.DS_Store'} (hidden, or of the system)\n"


def test_unreadable_files_are_named_and_skipped(model, folders, capsys):
    for path in ("support/ant/notes.txt", "query/cat/half.png"):
        (folders / path).write_bytes((folders / "query/cat/0.png").read_bytes()[:60])
    code, output, error = call(capsys, model, folders)
    assert code == 0
    assert error.count("skipped") == 2
    assert "support/ant/notes.txt is not a readable image" in error
    assert "query/cat/half.png" in error
    assert "Adapted to 6 images of 3 classes." in output
    assert "of 6 images" in output


def test_a_class_without_a_readable_image(model, folders, capsys):
    for path in (folders / "support/ant").iterdir():
        path.write_bytes(b"")
    code, output, error = call(capsys, model, folders)
    assert (code, output) == (1, "")
    assert "None of the images of class 'ant' can be read." in error


def test_folders_within_class_folders(model, folders, capsys):
    flat = call(capsys, model, folders)
    for part in ("support", "query"):
        deeper = folders / part / "ant" / "2026" / "may"
        deeper.mkdir(parents=True)
        (folders / part / "ant" / "1.png").rename(deeper / "1.png")
    code, nested, _ = call(capsys, model, folders)
    assert code == 0
    assert nested.splitlines()[-1] == flat[1].splitlines()[-1]
    assert "ant/2026/may/1.png" in nested


def test_files_and_patterns(model, folders, capsys):
    _, whole, _ = call(capsys, model, folders)
    single = folders / "query/ant/0.png"
    pattern = folders / "query/cat/*.png"
    arguments = ["--model", model, "--support", folders / "support", "--query", single, pattern]
    assert client.main([str(argument) for argument in arguments]) == 0
    output = capsys.readouterr().out
    answers = {line.split()[0]: line.split()[1:] for line in output.splitlines()[3:]}
    expected = {line.split()[0]: line.split()[1:] for line in whole.splitlines()[3:-1]}
    assert answers.keys() == {str(single), *(str(folders / f"query/cat/{k}.png") for k in range(3))}
    for name, answer in answers.items():
        assert answer == expected["/".join(name.split("/")[-2:])]


def test_reports(model, folders, capsys):
    out = {kind: folders / f"out.{kind}" for kind in ("csv", "json", "html")}
    (folders / "query/cat/0.png").rename(folders / "query/cat/<0>.png")
    flags = [argument for kind, path in out.items() for argument in (f"--{kind}", path)]
    code, output, _ = call(capsys, model, folders, *flags)
    assert code == 0
    found = json.loads(out["json"].read_text())
    with out["csv"].open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert found["classes"] == ["ant", "bee", "cat"]
    assert len(found["support"]) == 6
    assert len(found["support_losses"]) == 2
    assert [image["file"] for image in found["images"]] == [row["file"] for row in rows]
    for image, row in zip(found["images"], rows, strict=True):
        assert image["predicted"] == row["predicted"]
        assert image["probabilities"] == {name: float(row[name]) for name in found["classes"]}
    assert f"accuracy: {found['accuracy']:.2%}" in output
    page = out["html"].read_text()
    assert page.count("data:image/png;base64,") == 6 + 6
    assert "&lt;0&gt;.png" in page
    assert "<polyline" in page


def test_saved_classifier_answers_alike(model, folders, capsys):
    code, output, _ = call(
        capsys, model, folders, "--csv", folders / "out.csv", "--save", folders / "classifier"
    )
    assert code == 0, output
    with (folders / "out.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    saved = tf.saved_model.load(str(folders / "classifier")).signatures
    paths = [folders / "query" / row["file"] for row in rows]
    pixels = np.stack([images.read_image(path, (16, 16, 1)) for path in paths])
    files = tf.constant([path.read_bytes() for path in paths])
    expected = [[float(row[name]) for name in ("ant", "bee", "cat")] for row in rows]
    answer = saved["predict"](query_images=pixels)
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-6)
    assert [name.decode() for name in answer["labels"].numpy()] == [r["predicted"] for r in rows]
    assert [name.decode() for name in answer["class_names"].numpy()] == ["ant", "bee", "cat"]
    assert saved["predict_encoded"](query_images=files)["probabilities"].shape == [6, 3]

    result = call(capsys, model, folders, "--save", folders / "classifier")
    check_error(result, "exists already, and nothing is overwritten")


def test_number_of_updates(model, folders, capsys):
    outputs = []
    for steps in ((), ("--num_steps", "2"), ("--num_steps", "0")):
        code, output, _ = call(capsys, model, folders, *steps)
        assert code == 0
        outputs.append(output)
    assert outputs[0] == outputs[1] != outputs[2]


def check_error(result, message):
    code, output, error = result
    assert code == 1
    assert output == ""
    assert re.search("^error: ", error, re.MULTILINE)
    assert message in error


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (
            ["support/dog", "support/eel"],
            "has 5 class folders, but the model tells at most 4 classes",
        ),
        (["support/stray.png"], "stray.png is in no class folder"),
        (["query/dog"], "dog is none of the classes of the support folder (ant, bee, cat)"),
    ],
)
def test_too_much(model, folders, capsys, added, message):
    for name in added:
        path = folders / name
        write_image(path if path.suffix else path / "0.png", 0, 0)
    result = call(capsys, model, folders, "--csv", folders / "out.csv")
    check_error(result, message)
    assert not (folders / "out.csv").exists()


@pytest.mark.parametrize(
    ("removed", "left", "message"),
    [
        (["support"], "support/0.png", "has no class folders: expected"),
        (["support/ant"], "support/ant/.hidden.png", "support/ant holds no image"),
        (["query"], "query/.hidden.png", "query holds no image"),
        (["query"], None, "there is no such file or folder"),
    ],
)
def test_too_little(model, folders, capsys, removed, left, message):
    for name in removed:
        shutil.rmtree(folders / name)
    if left:
        write_image(folders / left, 0, 0)
    check_error(call(capsys, model, folders), message)


def half(contents):
    return contents[: len(contents) // 2]


def next_version(contents):
    return json.dumps(json.loads(contents) | {"format_version": 3}).encode()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("manifest.json", None, "is no exported model, it lacks manifest.json"),
        ("saved_model.pb", None, "is no exported model, it lacks saved_model.pb"),
        ("manifest.json", half, "manifest.json is damaged"),
        ("manifest.json", lambda _: b"{}", "is not that of a tf_metalstm.saved_model"),
        ("manifest.json", next_version, "has format version 3, this client knows 2"),
        ("saved_model.pb", half, "cannot be loaded; is the copy complete?"),
        ("variables/variables.index", None, "cannot be loaded; is the copy complete?"),
        ("variables/variables.index", half, "cannot be loaded; is the copy complete?"),
        (VALUES, None, "cannot be loaded; is the copy complete?"),
        (VALUES, half, "cannot be loaded; is the copy complete?"),
    ],
)
def test_damaged_models(model, folders, capsys, file, change, message):
    copy = shutil.copytree(model, folders / "copy")
    if change is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(change((copy / file).read_bytes()))
    check_error(call(capsys, copy, folders), message)


def test_csv_in_no_folder(model, folders, capsys):
    result = call(capsys, model, folders, "--csv", folders / "none" / "out.csv")
    check_error(result, "there is no such folder")


def test_support_is_read_shot_by_shot(tmp_path):
    write_classes(tmp_path, ["ant", "bee"], 2)
    write_image(tmp_path / "bee/2.png", 0, 0)
    classes = folders_of.class_files(tmp_path)
    pixels, labels, paths = images.read_support(classes, (16, 16, 1))
    assert labels == ["ant", "bee", "ant", "bee", "bee"]
    assert paths[2] == tmp_path / "ant/1.png"
    np.testing.assert_array_equal(pixels[2], images.read_image(paths[2], (16, 16, 1)))
