"""export/adapt.py as delivered: in a process without tf_metalstm and Keras, and its errors."""

import csv
import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from export_client import CLIENT, client
from PIL import Image

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.sources.pixels import gray_pixels
from tf_metalstm.saved_model import ServedMethod, save_method

NUM_WAY = 4
VALUES = "variables/variables.data-00000-of-00001"

# Whether or not the package is installed here, this process has none of it.
BARE_PROCESS = """
import runpy, sys
sys.modules["tf_metalstm"] = sys.modules["keras"] = None
try:
    import tf_metalstm.methods.base
except ImportError:
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
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
    keras.utils.set_random_seed(3)
    method = toy.conv_method(num_steps=2, num_way=NUM_WAY)
    for weight in method.rule.weights:  # an untrained rule hardly moves theta
        if weight.name == "input_bias":
            weight.assign(-1.4)
    return ServedMethod(method, Normalization((120.0,), (70.0,)), (16, 16, 1), NUM_WAY)


@pytest.fixture(scope="module")
def model(served, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "saved_model"
    save_method(served, directory)
    return directory


@pytest.fixture
def folders(tmp_path):
    write_classes(tmp_path / "support", ["ant", "bee", "cat"], 2)
    write_classes(tmp_path / "query", ["ant", "cat"], 3, first_seed=50)
    return tmp_path


def by_method(served, support, queries):
    """Probabilities of three classes out of the method's four, by its ordinary call."""

    def inputs(paths):
        images = [gray_pixels(path.read_bytes(), 16, str(path)) for path in paths]
        return served.normalization(np.stack(images))[tf.newaxis]

    names = sorted({path.parent.name for path in support})
    labels = [names.index(path.parent.name) for path in support]
    episode = {
        "support_inputs": inputs(support),
        "support_labels": tf.constant([labels]),
        "query_inputs": inputs(queries),
    }
    every_way = tf.nn.softmax(served.method(episode, training=False)[0]).numpy()
    return every_way[:, : len(names)] / every_way[:, : len(names)].sum(axis=1, keepdims=True)


def test_same_probabilities_in_a_process_without_the_package(served, model, folders):
    empty = folders / "empty"
    empty.mkdir()
    command = [sys.executable, "-I", "-c", BARE_PROCESS, CLIENT, "--model", model]
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
    assert "3 of its 4 ways: probabilities are renormalized" in result.stdout


def call(capsys, model, folders, *options):
    """Runs the client in this process; returns its exit code, output and errors."""
    arguments = ["--model", model, "--support", folders / "support", "--query", folders / "query"]
    code = client.main([str(argument) for argument in (*arguments, *options)])
    return code, *capsys.readouterr()


def test_flat_folder_in_small_chunks(served, model, folders, capsys, monkeypatch):
    shutil.rmtree(folders / "query")
    for k in range(5):
        write_image(folders / "query" / f"{k}.png", 40 * k, seed=k)
    (folders / "query" / ".DS_Store").touch()
    code, at_once, _ = call(capsys, model, folders)
    assert code == 0
    assert [line.split()[0] for line in at_once.splitlines()[2:]] == [
        "file",
        *(f"{k}.png" for k in range(5)),
    ]
    assert "accuracy" not in at_once
    monkeypatch.setattr(client, "_QUERIES_AT_A_TIME", 2)
    assert call(capsys, model, folders) == (0, at_once, "")


def test_unreadable_files_are_named_and_skipped_only_if_asked(model, folders, capsys):
    for path in ("support/ant/notes.txt", "query/cat/half.png"):
        (folders / path).write_bytes((folders / "query/cat/0.png").read_bytes()[:60])
    code, _, error = call(capsys, model, folders)
    assert code == 1
    assert "support/ant/notes.txt is not a readable image" in error
    assert "--skip_unreadable" in error
    code, output, error = call(capsys, model, folders, "--skip_unreadable")
    assert code == 0
    assert error.count("skipped") == 2
    assert "query/cat/half.png" in error
    assert "of 6 images" in output


def check_error(result, message):
    code, output, error = result
    assert code == 1
    assert output == ""
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (["support/dog", "support/eel"], "has 5 class folders, but the model tells 2 to 4 classes"),
        (["support/stray.png"], "stray.png is in no class folder"),
        (["support/ant/more"], "ant/more is a folder inside a class folder"),
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
        (["support/ant", "support/bee"], None, "has 1 class folders, but the model tells 2 to 4"),
        (["support"], "support/0.png", "has no class folders: expected"),
        (["support/ant"], "support/ant/.hidden.png", "support/ant holds no image"),
        (["query"], "query/.hidden.png", "query holds no image"),
        (["query"], None, "query is not a folder"),
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
    return json.dumps(json.loads(contents) | {"format_version": 2}).encode()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("manifest.json", None, "is no exported model, it lacks manifest.json"),
        ("saved_model.pb", None, "is no exported model, it lacks saved_model.pb"),
        ("manifest.json", half, "manifest.json is damaged"),
        ("manifest.json", lambda _: b"{}", "is not that of a tf_metalstm.saved_model"),
        ("manifest.json", next_version, "has format version 2, this client knows 1"),
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
    images, labels = client.read_support(client.class_folders(tmp_path), (16, 16, 1), False)
    assert labels.tolist() == [0, 1, 0, 1, 1]
    np.testing.assert_array_equal(images[2], client.read_image(tmp_path / "ant/1.png", (16, 16, 1)))
