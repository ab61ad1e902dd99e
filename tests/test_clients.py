"""Tests of single clients beyond the table in `odd_inputs.py`: warnings, files, numbers."""

import json
import re
import sys
import warnings

import numpy as np
import pytest
from export_client import FirstClass, client, rest, sending
from PIL import Image

from tf_metalstm import classifier as classifier_of
from tf_metalstm import loaded_model
from tf_metalstm.classifier import FewShotClassifier, ImagesWarning
from tf_metalstm.loaded_model import LoadedModel
from tf_metalstm.serving import remarks as remarks_of
from tf_metalstm.serving.remarks import of_size

SHAPE = (16, 16, 1)
BAD = b"%PDF-1.7"
MANIFEST = {
    "format": "tf_metalstm.saved_model",
    "format_version": 2,
    "image_shape": SHAPE,
    "num_way": 5,
}


def noise(seed, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, SHAPE).astype(np.uint8)


def drawing(seed, ground=255):
    pixels = np.full(SHAPE, ground, np.uint8)
    row, column = 3 + seed % 9, 3 + seed // 9
    pixels[row, 3:13] = pixels[3:13, column] = 255 - ground
    return pixels


SUPPORT = {"ant": [drawing(1), drawing(2)], "bee": [drawing(3), drawing(4)]}
QUERIES = [drawing(9)]


def folders(root, support=SUPPORT, queries=QUERIES):
    """Writes the pictures of classes, and queries. Returns the two folders."""
    for name, pictures in support.items():
        for number, pixels in enumerate(pictures):
            write(root / "support" / name / str(number), pixels)
    for number, pixels in enumerate(queries):
        write(root / "query" / str(number), pixels)
    return root / "support", root / "query"


def worth_little(root):
    """Returns the folders of a support set and a query that cause a warning, and the warning."""
    queries = [drawing(9), drawing(4)]
    said = ["in two classes: .*cat.0.*ant.0", "1 query picture is among .*1.*bee.1"]
    return *folders(root, SUPPORT | {"cat": [drawing(1), drawing(5)]}, queries), said


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0]).save(path, format="PNG")


def check(remarks, said):
    assert len(remarks) == len(said), remarks
    for one, expected in zip(remarks, said, strict=True):
        assert re.search(expected, one), one


def warned(text):
    return [line.removeprefix("warning: ") for line in text.splitlines() if "warning" in line]


class Value:
    """A tensor that a client can read with `numpy()`."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def numpy(self):
        return self.values


@pytest.fixture
def a_model(tmp_path, monkeypatch):
    """Writes a folder that export/adapt.py takes for a model. It always answers the first class."""

    folder, taken = tmp_path / "model", []
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    monkeypatch.setattr(client, "load_model", lambda _: FirstClass(taken))
    monkeypatch.setattr(client, "taken", taken, raising=False)
    return folder


def test_what_is_said_is_in_the_files_too(a_model, tmp_path, capsys):
    support, query, said = worth_little(tmp_path)
    arguments = ["--model", a_model, "--support", support, "--query", query]
    for kind in ("json", "html"):
        arguments += [f"--{kind}", tmp_path / f"out.{kind}"]
    assert client.main([str(argument) for argument in arguments]) == 0
    found = warned(capsys.readouterr().err)
    check(found, said)
    assert json.loads((tmp_path / "out.json").read_text())["warnings"] == found
    page = (tmp_path / "out.html").read_text()
    assert page.count('<p class="wrong">') == len(said)


@pytest.fixture
def a_classifier(monkeypatch):
    """Returns a classifier whose model always answers the first class."""

    def adapt(support_images, support_labels):
        return {"state": Value([0.0])}

    def predict(query_images, state):
        return {"probabilities": Value([[0.7, 0.3, 0.0, 0.0, 0.0]] * len(query_images))}

    loaded = LoadedModel({"adapt": adapt, "predict": predict}, SHAPE, 5, None, ("state",))
    monkeypatch.setattr(classifier_of, "load_model", lambda folder: loaded)
    return FewShotClassifier("model")


def files_and_labels(support):
    files = sorted(support.glob("*/*"))
    return files, [file.parent.name for file in files]


def test_few_shot_classifier_warns_and_remembers(a_classifier, tmp_path):
    support, query, said = worth_little(tmp_path)
    queries = sorted(query.iterdir())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        a_classifier.fit(*files_and_labels(support))
        a_classifier.predict(queries)
        a_classifier.predict_proba(queries)
    assert all(one.category is ImagesWarning and one.filename == __file__ for one in caught)
    found = [str(one.message) for one in caught]
    of_queries = a_classifier.remarks(queries)
    check([*a_classifier.remarks_, *of_queries], said)
    assert found == [*a_classifier.remarks_, *of_queries, *of_queries]


def test_arrays_are_named_by_their_place(a_classifier):
    images, labels = np.stack([drawing(1), drawing(2), drawing(3), drawing(2)]), list("abab")
    with pytest.warns(ImagesWarning, match=r"once: image 3 \(b\) is image 1\. It counts"):
        a_classifier.fit(images, labels)
    with pytest.warns(ImagesWarning, match=r"pictures: image 1 is image 0 \(a\)\. An accuracy"):
        a_classifier.predict(np.stack([drawing(9), drawing(1)]))


def test_without_numpy_nothing_is_looked_at_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "remarks", None)  # as if it could not be imported
    sending.warn_of({"ant": [tmp_path / "0.png"]}, [], SHAPE)
    errors = capsys.readouterr().err
    assert "note: the pictures are not checked for blank, equal and inverted ones" in errors


@pytest.fixture
def with_a_bad_file(tmp_path):
    """Writes folders of files. One file in each folder is not an image."""
    support, query = folders(tmp_path)
    (support / "ant" / "1").write_bytes(BAD)
    (query / "1").write_bytes(BAD)
    return support, query


def test_few_shot_classifier_leaves_bad_files_out(a_classifier, with_a_bad_file):
    support, query = with_a_bad_file
    files, labels = files_and_labels(support)
    queries = sorted(query.iterdir())
    with pytest.raises(ValueError, match=rf"^{support}/ant/1 is not a .* skip_corrupt=True\.$"):
        a_classifier.fit(files, labels)
    a_classifier.set_params(skip_corrupt=True)
    said = rf"^skipped: {support}/ant/1 is not a readable image \("
    with pytest.warns(ImagesWarning, match=said):
        a_classifier.fit(files, labels)
    assert a_classifier.classes_.tolist() == ["ant", "bee"]
    with pytest.warns(ImagesWarning, match=rf"^skipped: {query}/1 is not a readable image \("):
        probabilities = a_classifier.predict_proba(queries)
    np.testing.assert_allclose(probabilities, [[0.7, 0.3], [np.nan, np.nan]])
    with pytest.warns(ImagesWarning, match="^skipped: "):
        assert a_classifier.predict(queries).tolist() == ["ant", None]
    assert a_classifier.predict(queries[:1]).dtype == a_classifier.classes_.dtype
    (support / "ant" / "0").write_bytes(BAD)
    said = r"None of the images of class ant can be read: .*ant/0.*; .*ant/1"
    with pytest.raises(ValueError, match=said):
        a_classifier.fit(files, labels)


@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_queries_are_answered_a_few_at_a_time(a_classifier, monkeypatch, tmp_path, number):
    support, _ = folders(tmp_path)
    a_classifier.fit(*files_and_labels(support))
    sizes = []

    def predict(query_images, state):
        sizes.append(len(query_images))
        means = query_images.numpy().mean(axis=(1, 2, 3)) / 255
        nothing = np.zeros_like(means)
        return {"probabilities": Value(np.stack([means, 1 - means, *[nothing] * 3], axis=1))}

    a_classifier._model.signatures["predict"] = predict
    monkeypatch.setattr(loaded_model, "_PIXELS_AT_A_TIME", 3 * 16 * 16 + 5)
    queries = np.stack([noise(40 + k) for k in range(number)])
    found = a_classifier.predict_proba(queries)
    means = queries.mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(found, np.stack([means, 1 - means], axis=1), rtol=1e-6)
    assert sizes == [3] * (number // 3) + [number % 3] * (number % 3 > 0)


@pytest.mark.parametrize(
    ("number", "shape", "updates", "batch_size", "said"),
    [
        (2500, (84, 84, 3), True, None, "2500 support pictures at once"),
        (2500, (84, 84, 3), True, 3000, "about 11 GB"),
        (2500, (84, 84, 3), True, 500, "takes 500 support pictures at once. A network as those"),
        (500, (84, 84, 3), True, None, "about 2 GB"),
        (2500, (84, 84, 3), False, None, None),
        (2500, (84, 84, 3), True, 125, None),
        (400, (84, 84, 3), True, None, None),
        (2500, (28, 28, 1), True, None, None),
    ],
)
def test_the_memory_of_an_update_is_said_before(number, shape, updates, batch_size, said):
    found = of_size(number, shape, updates, batch_size)
    assert [said in one for one in found] == ([] if said is None else [True])


def test_the_memory_of_an_update_is_said_by_clients(
    a_model, a_classifier, monkeypatch, tmp_path, capsys
):
    support, query = folders(tmp_path)
    for module in (remarks_of, sys.modules["remarks"]):
        monkeypatch.setattr(module, "_BYTES", 5e6)
    (a_model / "manifest.json").write_text(json.dumps(MANIFEST | {"num_steps": 5}))
    arguments = ["--model", a_model, "--support", support, "--query", query]
    assert client.main([str(argument) for argument in arguments]) == 0
    [said] = warned(capsys.readouterr().err)
    assert said.startswith("Each update takes 4 support pictures at once.")
    model = classifier_of.load_model("model")._replace(num_steps=5)
    adapt = model.signatures["adapt"]
    model.signatures["adapt"] = lambda num_steps, **given: adapt(**given)
    monkeypatch.setattr(classifier_of, "load_model", lambda folder: model)
    with pytest.warns(ImagesWarning, match="^Each update takes 4 support pictures at once"):
        a_classifier.fit(*files_and_labels(support))
    assert len(a_classifier.remarks_) == 1


@pytest.mark.parametrize("steps", [0, 1, 1000])
def test_numbers_of_updates(steps, a_model, tmp_path, capsys):
    (a_model / "manifest.json").write_text(json.dumps(MANIFEST | {"num_steps": 5}))
    support, query = folders(tmp_path)
    arguments = ["--model", a_model, "--support", support, "--query", query]
    code = client.main([str(a) for a in (*arguments, "--num_steps", steps)])
    assert (code, capsys.readouterr().err) == (0, "")
    assert set(client.taken) == {steps}
    classes = {"ant": [support / "ant/0"]}
    model = {rest.ADAPT: {"inputs": {"num_steps": {}}}}
    assert rest.adapt_request(model, classes, steps)["inputs"]["num_steps"] == steps


@pytest.mark.parametrize("flag", ["model", "csv", "json", "html", "save"])
def test_a_home_folder_that_is_not_there(flag, a_model, tmp_path, capsys):
    support, query = folders(tmp_path)
    arguments = ["--model", a_model, "--support", support, "--query", query]
    assert client.main([*map(str, arguments), f"--{flag}", "~nobody-here/x"]) == 1
    said = "error: ~nobody-here/x: there is no home folder of that name"
    assert capsys.readouterr().err.startswith(said)
