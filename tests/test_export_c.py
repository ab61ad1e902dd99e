"""export/c as delivered: built by its Makefile, its answers those of the Python client."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import odd_pictures
import pytest
import toy
from export_client import FOLDER, SANITIZED
from golden import EPISODE, MODEL, PROBABILITIES
from PIL import Image

from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.serving.served import ServedMethod

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("make")), reason="needs a C compiler and make"
)


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
    assert "\nwarning: " not in result.stderr
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


def odd_files(folder, wanted):
    """The odd pictures that a signature reads, or refuses, as files; and what it says of them."""
    found = []
    for number, picture in enumerate(odd_pictures.PICTURES):
        if (picture.not_served is None) is wanted:
            path = folder / f"{number:02d}"
            path.write_bytes(picture.encoded)
            found.append((path, picture.not_served))
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model that decodes as this version does; it makes no updates."""
    folder = tmp_path_factory.mktemp("run") / "saved_model"
    method, normalization = PixelNearestNeighbor(), Normalization((0.0,), (255.0,))
    toy.save(ServedMethod(method, normalization, (28, 28, 1), None), folder)
    return folder


def test_odd_pictures(program, exported, tmp_path):
    files = [path for path, _ in odd_files(tmp_path, True)]
    result = call(program, exported, EPISODE / "support", *files)
    assert result.returncode == 0, result.stderr
    names, rows = answers(result.stdout)
    expected = FewShotClassifier(exported)
    support = sorted((EPISODE / "support").glob("*/*.png"))
    expected.fit(support, [path.parent.name for path in support])
    assert names == expected.classes_.tolist()
    found = [list(map(float, row[2:])) for row in rows]
    np.testing.assert_allclose(found, expected.predict_proba(files), atol=0.01)


def test_odd_pictures_that_are_refused_are_named(program, exported, tmp_path):
    (tmp_path / "odd").mkdir()
    for path, said in odd_files(tmp_path / "odd", False)[::9]:
        result = call(program, exported, EPISODE / "support", path)
        assert result.returncode == 1
        assert f"error: {path}: {said}" in result.stderr
    shutil.copytree(EPISODE / "support", tmp_path / "support")
    odd = sorted((tmp_path / "support").iterdir())[1] / "odd.png"
    odd.write_bytes(b"text")
    result = call(program, exported, tmp_path / "support", queries()[0])
    assert f"error: {odd}: it is not a JPEG, PNG, GIF, BMP or WebP file\n" in result.stderr


def test_what_is_of_the_system_is_left(program, tmp_path):
    shutil.copytree(EPISODE, tmp_path / "episode")
    support = tmp_path / "episode/support"
    expected = call(program, MODEL, support, queries()[0]).stdout
    some_class = sorted(support.iterdir())[0]
    for clutter in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (some_class / clutter).write_bytes(b"")
    (support / "@eaDir").mkdir()
    result = call(program, MODEL, support, queries()[0])
    assert result.stdout == expected
    assert " and 3 more (hidden, or of the system)\n" in result.stderr
    result = call(program, MODEL, tmp_path / "episode", queries()[0])
    assert result.returncode == 1
    assert "it holds the folders support and query" in result.stderr


def test_bad_files_are_left_out_where_that_is_wanted(program, exported, tmp_path):
    """Folders of folders, with files in them that are no images."""
    shutil.copytree(EPISODE, tmp_path / "episode")
    support, query = tmp_path / "episode/support", tmp_path / "episode/query"
    expected = call(program, exported, support, query).stdout
    first = sorted(support.iterdir())[0]
    (first / "more").mkdir()
    for number in (1, 2):
        (sorted(first.iterdir())[number]).rename(first / "more" / f"{number}.png")
    bad = [first / "z.png", support / "LAO_LETTER_FO_TAM/more/bad.png", query / "more/bad.png"]
    for path in bad:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%PDF")
    result = call(program, "--skip_corrupt", exported, support, query)
    why = "it is not a JPEG, PNG, GIF, BMP or WebP file"
    skipped = [line for line in result.stderr.splitlines() if line.startswith("skipped: ")]
    assert sorted(skipped) == sorted(f"skipped: {path}: {why}" for path in bad)
    assert result.stdout == expected
    result = call(program, "--skip_corrupt", exported, support, query / "more")
    assert result.returncode == 1
    assert "none of the images to classify can be read" in result.stderr
    for path in first.rglob("*.png"):
        path.write_bytes(b"%PDF")
    result = call(program, "--skip_corrupt", exported, support, query)
    assert f"error: {first.name}: none of the images of this class can be read" in result.stderr


def test_what_answers_are_worth_is_said(program, tmp_path):
    """Equal files, and how many there are of each class; the rest takes a decoder."""
    one, other = sorted((EPISODE / "support").iterdir())[:2]
    for folder in (one, other):
        shutil.copytree(folder, tmp_path / "support" / folder.name)
    known = queries()[-1]
    first = tmp_path / "support" / one.name
    for number in range(20):
        shutil.copy(known, first / f"y{number:02d}.png")
    shutil.copy(one / "000.png", tmp_path / "support" / other.name / "z.png")
    (tmp_path / "support" / other.name / "004.png").unlink()
    result = call(program, MODEL, tmp_path / "support", queries()[0], known)
    assert result.returncode == 0
    sizes, two, again, among = (
        line for line in result.stderr.splitlines() if line.startswith("warning: ")
    )
    assert f"{other.name} has 5 of the support pictures, {one.name} has 25." in sizes
    assert f"in two classes: {tmp_path}/support/{other.name}/z.png is {first}/000.png." in two
    assert f"more than once: {first}/y01.png is {first}/y00.png; {first}/y02" in again
    assert again.endswith("; and 14 more.")
    assert among.endswith(f"are among the support pictures: {known} is {first}/y00.png.")


def test_a_number_of_updates_for_a_model_that_makes_none(program, exported):
    result = call(program, "--num_steps", "3", exported, EPISODE / "support", queries()[0])
    assert result.returncode == 1
    assert "is for models that learn by them; this one does not" in result.stderr


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
    "no support": (lambda at: shutil.rmtree(at / "episode/support"), "is not a folder"),
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
    "no query": (lambda at: shutil.rmtree(at / "episode/query"), "there is no such file"),
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


@pytest.mark.parametrize(
    "arguments",
    [(), (MODEL,), ("--num_steps", "many", MODEL, "a", "b"), ("--steps", MODEL, "a", "b")],
)
def test_wrong_arguments(program, arguments):
    result = call(program, *arguments)
    assert result.returncode in (1, 2)
    said = ("usage: adapt", "expected a number of updates", "is none of --num_steps and --skip")
    assert any(one in result.stderr for one in said)


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
