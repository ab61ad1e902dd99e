"""export/c as delivered: built by its Makefile, its answers those of the Python client."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from export_client import FOLDER
from golden import EPISODE, MODEL, PROBABILITIES
from PIL import Image

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("make")), reason="needs a C compiler and make"
)


SANITIZED = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"


def build(tmp_path_factory, *options):
    leave_out = shutil.ignore_patterns("*.o", "adapt")
    folder = tmp_path_factory.mktemp("export") / "c"
    shutil.copytree(FOLDER / "c", folder, ignore=leave_out)
    command = ["make", f"PYTHON={sys.executable}", *options]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return folder / "adapt"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build(tmp_path_factory)


def call(program, *arguments, **environment):
    command = [str(argument) for argument in (program, *arguments)]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(command, capture_output=True, text=True, env=quiet | environment)


def queries():
    return sorted((EPISODE / "query").glob("*/*.png"))


def answers(output):
    header, *rows = csv.reader(io.StringIO(output), delimiter="\t")
    assert header[:2] == ["file", "predicted"]
    return header[2:], rows


def test_same_probabilities(program):
    result = call(program, MODEL, EPISODE / "support", *queries())
    assert result.returncode == 0, result.stderr
    names, rows = answers(result.stdout)
    golden = json.loads(PROBABILITIES.read_text())
    assert names == golden["classes"]
    for path, row in zip(queries(), rows, strict=True):
        expected = golden["probabilities"][path.relative_to(EPISODE / "query").as_posix()]
        assert row[0] == str(path)
        assert row[1] == names[np.argmax(expected)]
        np.testing.assert_allclose(np.array(row[2:], float), expected, atol=1e-5)


def test_under_the_sanitizers(program, tmp_path_factory, tmp_path):
    """Our own code oversteps nothing, and leaks nothing that it allocates itself."""
    own = build(tmp_path_factory, f"CFLAGS={SANITIZED}", f"LDFLAGS={SANITIZED}")
    (tmp_path / "suppressions").write_text("leak:libtensorflow\n")  # what is TensorFlow's
    options = {"LSAN_OPTIONS": f"suppressions={tmp_path / 'suppressions'}:print_suppressions=0"}
    arguments = (MODEL, EPISODE / "support", *queries()[:2])
    result = call(own, *arguments, **options)
    assert result.returncode == 0, result.stderr
    assert "Sanitizer" not in result.stderr
    assert result.stdout == call(program, *arguments).stdout
    (tmp_path / "no_image.png").write_bytes(b"%PDF")
    result = call(own, MODEL, EPISODE / "support", tmp_path / "no_image.png", **options)
    assert result.returncode == 1
    assert "Sanitizer" not in result.stderr


def test_number_of_updates(program):
    outputs = [
        call(program, *steps, MODEL, EPISODE / "support", queries()[0]).stdout
        for steps in ((), ("--num_steps", "5"), ("--num_steps", "0"))
    ]
    assert outputs[0] == outputs[1] != outputs[2]


def test_formats(program, tmp_path):
    """The same picture in every format that loses nothing gives the same answer."""
    with Image.open(queries()[0]) as opened:
        image = opened.convert("RGB")
    paths = [tmp_path / f"image.{ending}" for ending in ("png", "bmp", "gif")]
    for path in paths:
        image.save(path)
    _, rows = answers(call(program, MODEL, EPISODE / "support", *paths).stdout)
    assert len(rows) == len(paths)
    for row in rows:
        np.testing.assert_allclose(np.array(row[2:], float), np.array(rows[0][2:], float))


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def copies(tmp_path):
    shutil.copytree(MODEL, tmp_path / "model")
    shutil.copytree(EPISODE, tmp_path / "episode")
    return tmp_path


def first_image(folder):
    return sorted((folder / "episode/support").glob("*/*.png"))[0]


WRONG = {
    "no model": (lambda at: shutil.rmtree(at / "model"), "is the copy complete?"),
    "half a graph": (lambda at: half(at / "model/saved_model.pb"), "is the copy complete?"),
    "half of the weights": (
        lambda at: half(at / "model/variables/variables.data-00000-of-00001"),
        "is the copy complete?",
    ),
    "no support": (lambda at: shutil.rmtree(at / "episode/support"), "No such file"),
    "an empty class": (lambda at: (at / "episode/support/empty").mkdir(), "holds no image"),
    "no image": (lambda at: first_image(at).write_bytes(b"%PDF"), "Unknown image file format"),
    "an empty file": (lambda at: first_image(at).write_bytes(b""), "error: "),
    "half an image": (lambda at: half(first_image(at)), "error: "),
    "too many classes": (
        lambda at: [
            shutil.copytree(first_image(at).parent, at / f"episode/support/{n}") for n in "ab"
        ],
        "support_labels has more names than the 5 ways of the model",
    ),
    "no query": (lambda at: shutil.rmtree(at / "episode/query"), "No such file"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said(program, copies, wrong):
    query = copies / "episode/query" / queries()[0].relative_to(EPISODE / "query")
    spoil, message = WRONG[wrong]
    spoil(copies)
    result = call(program, copies / "model", copies / "episode/support", query)
    assert result.returncode == 1, result.stderr
    assert "error: " in result.stderr
    assert message in result.stderr


@pytest.mark.parametrize("arguments", [(), (MODEL,), ("--num_steps", "many", MODEL, "a", "b")])
def test_wrong_arguments(program, arguments):
    result = call(program, *arguments)
    assert result.returncode in (1, 2)
    assert "usage: adapt" in result.stderr or "expected a number of updates" in result.stderr


def test_reading_of_signatures_leaks_and_oversteps_nothing(tmp_path):
    """Our own parser over the real file, over every beginning of it, and over damaged ones."""
    harness = FOLDER.parent / "tests" / "signature_harness.c"
    program = tmp_path / "harness"
    command = ["cc", "-std=c11", *SANITIZED.split()]
    command += [f"-I{FOLDER / 'c'}", "-o", program, harness, FOLDER / "c" / "signature.c"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    result = call(program, MODEL / "saved_model.pb")
    assert result.returncode == 0, result.stderr
