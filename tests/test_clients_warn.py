"""Each client says by name what makes answers worth little, and which files it had to leave out."""

import base64
import importlib
import json
import re
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf
from export_client import FOLDER, client
from PIL import Image
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from tf_metalstm import classifier as classifier_of
from tf_metalstm.classifier import FewShotClassifier, ImagesWarning, LoadedModel

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

    def adapt(model, images, labels, num_steps):
        names = sorted(set(labels))
        return {"class_names": Value([name.encode() for name in names])}, []

    def call(model, signature, query_images, class_names):
        row = [1.0] + [0.0] * (len(class_names.numpy()) - 1)
        return {"probabilities": Value([row] * len(query_images))}

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    for name, function in (("load_model", lambda _: None), ("adapt", adapt), ("_call", call)):
        monkeypatch.setattr(client, name, function)
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
        self.requests = 0

    def __call__(self, url, body=None):
        if body is None:
            inputs = {"inputs": {"query_images": {}, "state": {}}}
            signatures = {"signature_def": dict.fromkeys(TAKEN, inputs)}
            return {"metadata": {"signature_def": signatures}}
        self.requests += 1
        request = json.loads(body)["inputs"]
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
        self.requests = 0

    def __call__(self, method, request):
        if isinstance(request, get_model_metadata_pb2.GetModelMetadataRequest):
            found = get_model_metadata_pb2.SignatureDefMap()
            for name in TAKEN:
                found.signature_def[name].inputs["query_images"].name = "q"
                found.signature_def[name].inputs["state"].name = "s"
            answer = get_model_metadata_pb2.GetModelMetadataResponse()
            answer.metadata["signature_def"].Pack(found)
            return answer
        self.requests += 1
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
    client_of.main([str(a) for a in ("--support", support, "--query", *query, *flags)])


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
