"""Each client says by name what makes answers worth little and which files it had to leave out, and
takes numbers in their range and paths as they are typed."""

import base64
import importlib
import json
import re
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf
from export_client import FOLDER, FirstClass, client
from PIL import Image
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from tf_metalstm import classifier as classifier_of
from tf_metalstm import loaded_model
from tf_metalstm.classifier import FewShotClassifier, ImagesWarning
from tf_metalstm.loaded_model import LoadedModel
from tf_metalstm.serving import remarks as remarks_of
from tf_metalstm.serving.remarks import of_size

sys.path.insert(0, str(FOLDER / "serving"))
try:
    rest, grpc_client = map(importlib.import_module, ("rest", "grpc_client"))
finally:
    sys.path.remove(str(FOLDER / "serving"))

SHAPE = (16, 16, 1)
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


# What is in the folders, and what is said: of each kind one case.
SUPPORT = {"ant": [drawing(1), drawing(2)], "bee": [drawing(3), drawing(4)]}
CASES = {
    "nothing": (SUPPORT, [drawing(9)], []),
    "blank": (
        SUPPORT | {"cat": [noise(0, 9, 20), drawing(5)]},
        [drawing(9)],
        ["1 support picture is blank.*cat.0"],
    ),
    "in two classes": (
        SUPPORT | {"cat": [drawing(1), drawing(5)]},
        [drawing(9)],
        ["in two classes: .*cat.0.*ant.0"],
    ),
    "twice": (
        SUPPORT | {"cat": [drawing(6), drawing(5), drawing(6)]},
        [drawing(9)],
        ["more than once: .*cat.2.*cat.0"],
    ),
    "known queries": (
        SUPPORT,
        [drawing(9), drawing(4)],
        ["1 query picture is among the support pictures: .*1.*bee.1"],
    ),
    "inverted": (SUPPORT, [drawing(9, 0), drawing(10, 0)], ["of 2 query pictures lighter"]),
    "unequal": (
        SUPPORT | {"cat": [drawing(20 + k) for k in range(10)]},
        [drawing(9)],
        ["ant has 2 of the support pictures, cat has 10"],
    ),
    "blank query": (SUPPORT, [noise(0, 9, 20)], ["1 query picture is blank.*0"]),
}
every_case = pytest.mark.parametrize("case", CASES)


def folders(root, case):
    """Writes the images of a case; returns its two folders and what is said of them."""
    support, queries, said = CASES[case]
    for name, pictures in support.items():
        for number, pixels in enumerate(pictures):
            write(root / "support" / name / str(number), pixels)
    for number, pixels in enumerate(queries):
        write(root / "query" / str(number), pixels)
    return root / "support", root / "query", said


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
    """A tensor, as far as a client asks."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def numpy(self):
        return self.values


@pytest.fixture
def a_model(tmp_path, monkeypatch):
    """A folder that looks like a model to export/adapt.py, which always answers the first class."""

    folder, taken = tmp_path / "model", []
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    monkeypatch.setattr(client, "load_model", lambda _: FirstClass(taken))
    monkeypatch.setattr(client, "taken", taken, raising=False)
    return folder


@every_case
def test_adapt(case, a_model, tmp_path, capsys):
    support, query, said = folders(tmp_path, case)
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
    """One whose model always answers the first class."""

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


@every_case
def test_few_shot_classifier(case, a_classifier, tmp_path):
    support, query, said = folders(tmp_path, case)
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


BAD = b"%PDF-1.7"
TAKEN = ("adapt_encoded_named", "predict_encoded_named")


def refused(files, part):
    """What the graph of a model says of a file that it cannot read, or nothing."""
    for place, file in enumerate(files):
        if file.startswith(BAD):
            return (
                "Graph execution error:\n\nassertion failed: "
                f"[{part}_images[{place}]: it is damaged] [[{{node Assert}}]]"
            )
    return None


class RestServer:
    """Answers as a server would; always the first class."""

    def __init__(self):
        self.requests, self.makes_updates, self.taken = 0, False, []

    def __call__(self, url, body=None):
        assert url in ("http://here/few_shot/metadata", "http://here/few_shot:predict")
        if body is None:
            adapt = {"num_steps": {}} if self.makes_updates else {}
            inputs = (adapt, {"query_images": {}, "state": {}})
            found = {name: {"inputs": each} for name, each in zip(TAKEN, inputs, strict=True)}
            return {"metadata": {"signature_def": {"signature_def": found}}}
        self.requests += 1
        request = json.loads(body)["inputs"]
        self.taken += [request["num_steps"]] if "num_steps" in request else []
        part = "support" if "support_images" in request else "query"
        files = [base64.b64decode(one["b64"]) for one in request[f"{part}_images"]]
        if refused(files, part):
            raise rest.ServerError(refused(files, part))
        if part == "support":
            assert len(files) == len(request["support_labels"])
            return {"outputs": {"state": [sorted(set(request["support_labels"]))[0]]}}
        number = len(files)
        labels = request["state"] * number
        return {"outputs": {"labels": labels, "probabilities": [[1.0, 0.0]] * number}}


class GrpcServer:
    """The same over gRPC."""

    def __init__(self):
        self.requests, self.makes_updates, self.taken = 0, False, []

    def __call__(self, method, request):
        if isinstance(request, get_model_metadata_pb2.GetModelMetadataRequest):
            found = get_model_metadata_pb2.SignatureDefMap()
            adapt = ["num_steps"] if self.makes_updates else []
            for name, inputs in zip(TAKEN, (adapt, ["query_images", "state"]), strict=True):
                found.signature_def[name].method_name = "predict"
                for each in inputs:
                    found.signature_def[name].inputs[each].name = each
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            answer.metadata["signature_def"].Pack(found)
            return answer
        self.requests += 1
        if "num_steps" in request.inputs:
            self.taken.append(int(tf.make_ndarray(request.inputs["num_steps"])))
        part = "support" if "support_images" in request.inputs else "query"
        files = tf.make_ndarray(request.inputs[f"{part}_images"])
        if refused(files, part):
            raise grpc_client.ServerError(refused(files, part))
        answer, number = predict_pb2.PredictResponse(), len(files)
        if part == "support":
            labels = tf.make_ndarray(request.inputs["support_labels"])
            outputs = {"state": [sorted(set(labels))[0]]}
        else:
            state = tf.make_ndarray(request.inputs["state"])
            outputs = {"labels": [state[0]] * number, "probabilities": [[1.0, 0.0]] * number}
        for name, value in outputs.items():
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return answer


@pytest.fixture(params=["rest", "grpc"])
def served(request, monkeypatch):
    """A client in front of a server that answers the first class; and the server."""
    if request.param == "rest":
        server = RestServer()
        monkeypatch.setattr(rest, "_answer", server)
        return rest, server
    server = GrpcServer()
    monkeypatch.setattr(grpc_client, "_called", server)
    return grpc_client, server


def asked(client_of, support, *query, flags=()):
    where = ["--url", "http://here/few_shot/"] if client_of is rest else []
    client_of.main([str(a) for a in (*where, "--support", support, "--query", *query, *flags)])


@every_case
def test_served(case, served, tmp_path, capsys):
    support, query, said = folders(tmp_path, case)
    asked(served[0], support, query)
    output, errors = capsys.readouterr()
    check(warned(errors), said)
    assert len(output.splitlines()) == len(CASES[case][1])


def test_without_numpy_nothing_is_looked_at_and_that_is_said(tmp_path, monkeypatch, capsys):
    support, query, _ = folders(tmp_path, "inverted")
    monkeypatch.setattr(rest, "_answer", RestServer())
    monkeypatch.setitem(sys.modules, "remarks", None)  # as where it cannot be imported
    asked(rest, support, query)
    errors = capsys.readouterr().err
    assert "note: whether pictures are blank, equal or inverted is not looked at" in errors


@pytest.fixture
def with_a_bad_file(tmp_path):
    """Folders of files, one of which in each part is no image."""
    support, query, _ = folders(tmp_path, "nothing")
    (support / "ant" / "1").write_bytes(BAD)
    (query / "1").write_bytes(BAD)
    return support, query


def test_served_a_bad_file_is_named_and_there_is_an_offer(served, with_a_bad_file):
    support, query = with_a_bad_file
    offer = "it is damaged. Leave such files out with --skip_corrupt.$"
    with pytest.raises(SystemExit, match=f"^error: the server says: {support}/ant/1: {offer}"):
        asked(served[0], support, query)
    (support / "ant" / "1").unlink()
    with pytest.raises(SystemExit, match=f"^error: the server says: {query}/1: {offer}"):
        asked(served[0], support, query)


def test_served_bad_files_are_left_out_where_that_is_wanted(served, with_a_bad_file, capsys):
    support, query = with_a_bad_file
    for number in (2, 4):
        (support / "bee" / str(number)).write_bytes(BAD)
        (query / str(number)).write_bytes(BAD)
    write(query / "3", drawing(30))
    asked(served[0], support, query, flags=["--skip_corrupt"])
    output, errors = capsys.readouterr()
    assert [line.split("\t")[:2] for line in output.splitlines()] == [
        [f"{query}/0", "ant"],
        [f"{query}/3", "ant"],
    ]
    bad = [support / "ant/1", support / "bee/2", support / "bee/4"]
    bad += [query / name for name in "124"]
    skipped = [line for line in errors.splitlines() if line.startswith("skipped: ")]
    assert skipped == [f"skipped: {path}: it is damaged" for path in bad]
    assert served[1].requests == len(bad) + 2


@pytest.mark.parametrize("part", ["support", "query"])
def test_served_when_nothing_of_a_part_can_be_read(served, part, tmp_path):
    support, query, _ = folders(tmp_path, "nothing")
    said = "None of the images to classify can be read"
    if part == "support":
        said = "None of the images of class 'bee' can be read"
    for path in (support / "bee").iterdir() if part == "support" else query.iterdir():
        path.write_bytes(BAD)
    with pytest.raises(SystemExit, match=f"^error: {said}.$"):
        asked(served[0], support, query, flags=["--skip_corrupt"])


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
    support, _, _ = folders(tmp_path, "nothing")
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
    support, query, _ = folders(tmp_path, "nothing")
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


STEPS = [(-1, False), (0, True), (1, True), (1000, True), (1001, False), (2**31, False)]


@pytest.mark.parametrize(("steps", "taken"), STEPS)
def test_numbers_of_updates_of_adapt(steps, taken, a_model, tmp_path, capsys):
    (a_model / "manifest.json").write_text(json.dumps(MANIFEST | {"num_steps": 5}))
    support, query, _ = folders(tmp_path, "nothing")
    arguments = ["--model", a_model, "--support", support, "--query", query]
    code = client.main([str(a) for a in (*arguments, "--num_steps", steps)])
    said = f"error: --num_steps must be from 0 to 1000, got {steps}.\n"
    assert (code, capsys.readouterr().err) == ((0, "") if taken else (1, said))
    assert set(client.taken) == ({steps} if taken else set())


@pytest.mark.parametrize(("steps", "taken"), STEPS)
def test_numbers_of_updates_of_those_that_are_served(steps, taken, served, tmp_path):
    client_of, server = served
    server.makes_updates = True
    support, query, _ = folders(tmp_path, "nothing")
    if taken:
        asked(client_of, support, query, flags=["--num_steps", steps])
    else:
        said = f"^error: --num_steps must be from 0 to 1000, got {steps}.$"
        with pytest.raises(SystemExit, match=said):
            asked(client_of, support, query, flags=["--num_steps", steps])
    assert server.taken == ([steps] if taken else [])


@pytest.mark.parametrize("steps", ["3.5", "many", ""])
def test_numbers_that_are_none(steps, a_model, served, tmp_path):
    support, query, _ = folders(tmp_path, "nothing")
    for call in (
        lambda flags: asked(served[0], support, query, flags=flags),
        lambda flags: client.main(["--model", "m", "--support", "s", "--query", "q", *flags]),
    ):
        with pytest.raises(SystemExit) as caught:
            call(["--num_steps", steps])
        assert caught.value.code == 2


def test_a_home_folder_that_is_not_there(served, a_model, tmp_path, capsys):
    support, query, _ = folders(tmp_path, "nothing")
    said = "error: ~nobody-here/x: there is no home folder of that name"
    for paths in (("~nobody-here/x", query), (support, "~nobody-here/x")):
        with pytest.raises(SystemExit, match=f"^{said}"):
            asked(served[0], *paths)
        arguments = ["--model", a_model, "--support", paths[0], "--query", paths[1]]
        assert client.main(list(map(str, arguments))) == 1
        assert capsys.readouterr().err.startswith(said)
    for flag in ("model", "csv", "json", "html", "save"):
        arguments = ["--model", a_model, "--support", support, "--query", query]
        assert client.main([*map(str, arguments), f"--{flag}", "~nobody-here/x"]) == 1
        assert capsys.readouterr().err.startswith(said)
