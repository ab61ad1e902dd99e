"""export/c is built by its Makefile, and answers as the Python client does."""

import json
import shutil
import subprocess

import numpy as np
import odd_pictures
import pytest
import toy
from c_programs import answers, build, built, built_cases, call, call_each, needs_compiler
from export_client import FOLDER, SANITIZED
from golden import EPISODE, MODEL, PROBABILITIES

from tf_metalstm.classifier import FewShotClassifier
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.serving.served import ServedMethod

pytestmark = needs_compiler
SUPPORT = EPISODE / "support"


def queries():
    return sorted((EPISODE / "query").glob("*/*.png"))


def test_same_probabilities(tmp_path_factory):
    result = call(built(tmp_path_factory), MODEL, SUPPORT, *queries())
    assert result.returncode == 0, result.stderr
    assert "\nwarning: " not in result.stderr
    assert (
        "\nnote: the pictures are not checked for blank, equal and inverted ones" in result.stderr
    )
    names, rows = answers(result.stdout)
    golden = json.loads(PROBABILITIES.read_text())
    assert names == golden["classes"]
    for path, row in zip(queries(), rows, strict=True):
        expected = golden["probabilities"][path.relative_to(EPISODE / "query").as_posix()]
        assert row[0] == str(path)
        assert row[1] == names[np.argmax(expected)]
        np.testing.assert_allclose(np.array(row[2:], float), expected, atol=1e-5)


@pytest.mark.slow  # TensorFlow under the sanitizers takes minutes
def test_under_the_sanitizers(exported, tmp_path_factory, tmp_path):
    """Our own code makes no invalid memory access and frees all memory that it allocates."""
    own = build(tmp_path_factory, f"CFLAGS={SANITIZED}", f"LDFLAGS={SANITIZED}")
    (tmp_path / "suppressions").write_text("leak:libtensorflow\n")  # leaks of TensorFlow
    options = {"LSAN_OPTIONS": f"suppressions={tmp_path / 'suppressions'}:print_suppressions=0"}
    (tmp_path / "no_image.png").write_bytes(b"%PDF")
    for model in (MODEL, exported):
        result = call(own, model, SUPPORT, *queries()[:2], **options)
        assert result.returncode == 0, result.stderr
        assert "Sanitizer" not in result.stderr
        result = call(own, model, SUPPORT, tmp_path / "no_image.png", **options)
        assert result.returncode == 1
        assert "Sanitizer" not in result.stderr


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a model of this version, so it decodes files. It makes no updates."""
    folder = tmp_path_factory.mktemp("run") / "saved_model"
    method, normalization = PixelNearestNeighbor(), Normalization((0.0,), (255.0,))
    toy.save(ServedMethod(method, normalization, (28, 28, 1), None), folder)
    return folder


def odd_files(folder, wanted):
    """Writes the odd pictures that a signature reads or refuses; returns files and errors."""
    found = []
    for number, picture in enumerate(odd_pictures.PICTURES):
        if (picture.not_served is None) is wanted:
            path = folder / f"{number:02d}"
            path.write_bytes(picture.encoded)
            found.append((path, picture.not_served))
    return found


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def more_classes(at):
    first = sorted((at / "support").iterdir())[0]
    shutil.copytree(first, at / "support/more")


# Changes to a copy of a model and an episode, and the errors.
WRONG = {
    "no model": (lambda at: shutil.rmtree(at / "model"), "is the copy complete?"),
    "half a graph": (lambda at: half(at / "model/saved_model.pb"), "is the copy complete?"),
    "half of the weights": (
        lambda at: half(at / "model/variables/variables.data-00000-of-00001"),
        "is the copy complete?",
    ),
    "too many classes": (
        more_classes,
        "{s} has 6 class folders, but the model tells at most 5 classes apart: take away some, or "
        "take a model that compares features, which has no limit.",
    ),
}
ARGUMENTS = {
    "nothing": ((), "usage: adapt"),
    "a model alone": ((MODEL,), "usage: adapt"),
    "no number": (("--num_steps", "many", MODEL, "a", "b"), "a whole number from 0 to 1000"),
    "a long path of a model": (("m" * 300, SUPPORT, SUPPORT), "is the copy complete?"),
    "a long path of a support set": ((MODEL, "s" * 300, "q"), "s is not a folder."),
    "a long path of a query": (
        (MODEL, SUPPORT, f"/{'q' * 5000}"),
        "q: there is no such file or folder.",
    ),
    "another flag": (("--steps", MODEL, "a", "b"), "is none of --num_steps, --skip_corrupt, --e"),
}


@pytest.fixture(scope="module")
def results(exported, tmp_path_factory):
    """Runs all cases of this file in one process. Returns the results by name."""
    root = tmp_path_factory.mktemp("cases")
    one = queries()[0]
    cases = {steps: ["--num_steps", steps, MODEL, SUPPORT, one] for steps in ("5", "0")}
    cases["by default"] = [MODEL, SUPPORT, one]
    for part, wanted in (("read", True), ("refused", False)):
        (root / part).mkdir()
        files = [path for path, _ in odd_files(root / part, wanted)]
        cases[part] = ["--skip_corrupt", exported, SUPPORT, one, *files]
    for name, (spoil, _) in WRONG.items():
        shutil.copytree(MODEL, root / name / "model")
        shutil.copytree(SUPPORT, root / name / "support")
        spoil(root / name)
        model = MODEL if (root / name / "support/more").exists() else root / name / "model"
        cases[name] = [model, root / name / "support", one]
    cases |= {name: list(arguments) for name, (arguments, _) in ARGUMENTS.items()}
    (root / "out").mkdir()
    found = call_each(built_cases(tmp_path_factory), root / "out", list(cases.values()))
    return root, dict(zip(cases, found, strict=True))


def test_number_of_updates(results):
    _, found = results
    assert found["by default"].stdout == found["5"].stdout != found["0"].stdout


def test_odd_pictures(results, exported):
    root, found = results
    names, rows = answers(found["read"].stdout)
    expected = FewShotClassifier(exported)
    support = sorted(SUPPORT.glob("*/*.png"))
    expected.fit(support, [path.parent.name for path in support])
    assert names == expected.classes_.tolist()
    probabilities = [list(map(float, row[2:])) for row in rows[1:]]
    files = sorted((root / "read").iterdir())
    np.testing.assert_allclose(probabilities, expected.predict_proba(files), atol=0.01)


def test_odd_pictures_that_are_refused_are_named(results):
    root, found = results
    skipped = [line for line in found["refused"].stderr.splitlines() if "skipped: " in line]
    for line, (path, said) in zip(skipped, odd_files(root / "refused", False), strict=True):
        assert line.startswith(f"skipped: {path} is not a readable image ({said}")
    assert len(answers(found["refused"].stdout)[1]) == 1


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said(results, wrong):
    root, found = results
    assert found[wrong].returncode == 1
    said = WRONG[wrong][1].replace("{s}", str(root / wrong / "support"))
    assert "error: " in found[wrong].stderr
    assert said in found[wrong].stderr


@pytest.mark.parametrize("wrong", ARGUMENTS)
def test_wrong_arguments(results, wrong):
    _, found = results
    assert found[wrong].returncode in (1, 2)
    assert ARGUMENTS[wrong][1] in found[wrong].stderr


def test_reading_of_signatures_leaks_and_oversteps_nothing(tmp_path):
    """Our parser gets the real file, every beginning of it, and damaged files."""
    harness = FOLDER.parent / "tests" / "signature_harness.c"
    program = tmp_path / "harness"
    command = ["cc", "-std=c11", *SANITIZED.split()]
    command += [f"-I{FOLDER / 'c'}", "-o", program, harness, FOLDER / "c" / "signature.c"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    result = call(program, MODEL / "saved_model.pb")
    assert result.returncode == 0, result.stderr
