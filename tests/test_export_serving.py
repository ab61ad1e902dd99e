"""export/serving: its requests against the real signatures, by the rules of TensorFlow Serving."""

import base64
import concurrent.futures
import contextlib
import importlib.util
import json
import re
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import numpy as np
import odd_pictures
import pytest
import tensorflow as tf
import toy
from export_client import FOLDER, folders
from golden import EPISODE, MODEL, expected
from google.protobuf import json_format, text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.methods.pixel_nearest_neighbor import PixelNearestNeighbor
from tf_metalstm.serving.served import ServedMethod

class_files = folders.class_files

sys.path.insert(0, str(FOLDER / "serving"))


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / "serving" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


rest, grpc_client = load("rest"), load("grpc_client")
sys.path.remove(str(FOLDER / "serving"))


def decoded(value):
    """What TensorFlow Serving makes of a number, a text, {"b64": ...}, or a list of such."""
    if isinstance(value, list):
        return [decoded(one) for one in value]
    if isinstance(value, dict):
        assert value.keys() == {"b64"}
        return base64.b64decode(value["b64"], validate=True)
    return value


def encoded(values):
    return [one.decode() if isinstance(one, bytes) else one for one in values.tolist()]


class Served:
    """A model, and what a server says of its signatures."""

    def __init__(self, folder):
        self.model = tf.saved_model.load(str(folder))
        contents = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        self.definitions = get_model_metadata_pb2.SignatureDefMap()
        for name, found in contents.meta_graphs[0].signature_def.items():
            self.definitions.signature_def[name].CopyFrom(found)


class Server(BaseHTTPRequestHandler):
    """The part of TensorFlow Serving's REST interface that a client of ours meets."""

    def do_GET(self):
        assert self.path == "/v1/models/few_shot/metadata"
        found = json_format.MessageToDict(
            self.server.served.definitions, preserving_proto_field_name=True
        )
        self.answer(200, {"metadata": {"signature_def": found}})

    def do_POST(self):
        assert self.path == "/v1/models/few_shot:predict"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert request.keys() == {"signature_name", "inputs"}
        signature = self.server.served.model.signatures[request["signature_name"]]
        specs = signature.structured_input_signature[1]
        assert request["inputs"].keys() == specs.keys()
        try:
            outputs = signature(
                **{
                    name: tf.constant(decoded(value), specs[name].dtype)
                    for name, value in request["inputs"].items()
                }
            )
        except tf.errors.InvalidArgumentError as error:
            self.answer(400, {"error": error.message})
        else:
            found = {name: encoded(value.numpy()) for name, value in outputs.items()}
            self.answer(200, {"outputs": found})

    def answer(self, status, contents):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(contents).encode())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def rest_server(served):
    server = HTTPServer(("127.0.0.1", 0), Server)
    server.served = served
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/models/few_shot"
    server.shutdown()
    thread.join()
    server.server_close()


class GrpcServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The same over gRPC; what a request leaves out is as in the model."""

    def __init__(self, served):
        self.served = served

    def GetModelMetadata(self, request, context):
        assert request.model_spec.name == "few_shot"
        assert request.metadata_field == ["signature_def"]
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.metadata["signature_def"].Pack(self.served.definitions)
        return answer

    def Predict(self, request, context):
        assert request.model_spec.name == "few_shot"
        function = getattr(self.served.model, request.model_spec.signature_name)
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        try:
            outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        answer = predict_pb2.PredictResponse()
        for name in request.output_filter:
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name].numpy()))
        return answer


@contextlib.contextmanager
def grpc_server(served):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    servicer = GrpcServer(served)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(scope="module")
def golden():
    return Served(MODEL)


@pytest.fixture
def url(golden):
    with rest_server(golden) as found:
        yield found


@pytest.fixture
def address(golden):
    with grpc_server(golden) as found:
        yield found


def query_paths():
    return sorted((EPISODE / "query").glob("*/*.png"))


@pytest.mark.parametrize("client", [rest, grpc_client])
def test_same_answers(url, address, capsys, client):
    where = ["--url", url, "--num_steps", 5] if client is rest else ["--address", address]
    arguments = [*where, "--support", EPISODE / "support", "--query", *query_paths()]
    client.main([str(argument) for argument in arguments])
    names, rows = expected()
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(rows)
    for path, (file, name, percent) in zip(query_paths(), lines, strict=True):
        wanted = rows[path.relative_to(EPISODE / "query").as_posix()]
        assert file == str(path)
        assert name == names[np.argmax(wanted)]
        assert abs(float(percent.rstrip("%")) / 100 - max(wanted)) < 1e-4


def test_what_the_server_says_is_passed_on(url, address, tmp_path):
    (tmp_path / "support/cat").mkdir(parents=True)
    (tmp_path / "support/cat/0.png").write_bytes(b"%PDF")
    arguments = ["--url", url, "--support", tmp_path / "support", "--query", query_paths()[0]]
    arguments += ["--num_steps", 5]
    with pytest.raises(SystemExit, match=r"(?s)the server says: .*Unknown image file format"):
        rest.main([str(argument) for argument in arguments])
    with pytest.raises(SystemExit, match=r"(?s)the server says: .*Unknown image file format"):
        grpc_client.main([str(a) for a in ("--address", address, *arguments[2:])])
    with pytest.raises(SystemExit, match="does not answer"):
        rest.main([str(a) for a in ("--url", "http://127.0.0.1:9/v1/models/x", *arguments[2:])])


def test_the_configuration_is_one_and_names_what_the_clients_ask():
    text = (FOLDER / "serving" / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.name == grpc_client.metadata_request().model_spec.name


def test_all_of_the_probabilities(url):
    model = rest.signatures(url)
    adapted = rest.ask(url, rest.adapt_request(model, class_files(EPISODE / "support"), 5))
    answer = rest.ask(url, rest.predict_request(model, adapted, query_paths()))
    names, rows = expected()
    assert answer["class_names"] == names
    wanted = [rows[path.relative_to(EPISODE / "query").as_posix()] for path in query_paths()]
    np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5)


SHAPE = (28, 28, 1)


def nearest_neighbor():
    return PixelNearestNeighbor()


def matching_networks():
    return MatchingNetworks(embedding_of(conv4(SHAPE, 5, 4)), 5, full_context=True)


@pytest.fixture(scope="module", params=[nearest_neighbor, matching_networks])
def without_updates(request, tmp_path_factory):
    """A model that makes no updates, and whose `adapt` returns what only it knows."""
    folder = tmp_path_factory.mktemp("run") / "saved_model"
    toy.save(ServedMethod(request.param(), Normalization((0.0,), (255.0,)), SHAPE, None), folder)
    return Served(folder)


@pytest.mark.parametrize("client", [rest, grpc_client])
def test_every_method_is_served(without_updates, client, capsys):
    classes = class_files(EPISODE / "support")
    pairs = [(path, name) for name, paths in classes.items() for path in paths]
    expected = without_updates.model.signatures["classify_encoded_named"](
        support_images=tf.constant([path.read_bytes() for path, _ in pairs]),
        support_labels=tf.constant([name for _, name in pairs]),
        query_images=tf.constant([path.read_bytes() for path in query_paths()]),
    )
    start, flag = (rest_server, "--url") if client is rest else (grpc_server, "--address")
    with start(without_updates) as place:
        arguments = [flag, place, "--support", EPISODE / "support", "--query", EPISODE / "query"]
        client.main([str(argument) for argument in arguments])
        lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        with pytest.raises(SystemExit, match="--num_steps is for models that learn by updates"):
            client.main([str(argument) for argument in (*arguments, "--num_steps", "5")])
    assert [file for file, _, _ in lines] == [str(path) for path in query_paths()]
    assert [name.encode() for _, name, _ in lines] == expected["labels"].numpy().tolist()
    best = np.max(expected["probabilities"], axis=1)
    np.testing.assert_allclose([float(p.rstrip("%")) / 100 for *_, p in lines], best, atol=1e-4)


def test_updates_have_to_be_said(url):
    with pytest.raises(SystemExit, match="This model learns by updates: give --num_steps"):
        rest.main(
            ["--url", url, "--support", str(EPISODE / "support"), "--query", str(query_paths()[0])]
        )


@pytest.mark.parametrize("client", [rest, grpc_client])
def test_a_file_that_cannot_be_read_is_named(without_updates, client, tmp_path):
    """In the support set, and among the queries: every odd file that a signature refuses."""
    start, flag = (rest_server, "--url") if client is rest else (grpc_server, "--address")
    shutil.copytree(EPISODE / "support", tmp_path / "support")
    odd, query = sorted((tmp_path / "support").glob("*"))[1] / "odd", tmp_path / "odd query"
    with start(without_updates) as place:
        arguments = [flag, place, "--support", tmp_path / "support", "--query"]
        for picture in odd_pictures.PICTURES:
            if picture.not_served is None:
                continue
            said = rf"error: the server says: {{}}: {re.escape(picture.not_served)}"
            odd.write_bytes(picture.encoded)
            with pytest.raises(SystemExit, match=said.format(re.escape(str(odd)))):
                client.main([str(a) for a in (*arguments, query_paths()[0])])
            odd.unlink()
        query.write_bytes(b"text")
        with pytest.raises(SystemExit, match=f"says: {query}: it is not a JPEG"):
            client.main([str(a) for a in (*arguments, query_paths()[0], query)])


def test_odd_pictures_are_served(without_updates, capsys, tmp_path):
    read = [picture for picture in odd_pictures.PICTURES if picture.not_served is None]
    for number, picture in enumerate(read):
        (tmp_path / f"{number:02d}").write_bytes(picture.encoded)
    with rest_server(without_updates) as url:
        arguments = ["--url", url, "--support", EPISODE / "support", "--query", tmp_path]
        rest.main([str(argument) for argument in arguments])
    assert len(capsys.readouterr().out.splitlines()) == len(read)
