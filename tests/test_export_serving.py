"""export/serving: its requests against the real signatures, by the rules of TensorFlow Serving."""

import base64
import concurrent.futures
import importlib.util
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import numpy as np
import pytest
import tensorflow as tf
from export_client import FOLDER
from golden import EPISODE, MODEL, expected
from google.protobuf import text_format
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from tensorflow_serving.config import model_server_config_pb2

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


class Server(BaseHTTPRequestHandler):
    """The part of TensorFlow Serving's REST interface that a client of ours meets."""

    signatures = tf.saved_model.load(str(MODEL)).signatures

    def do_POST(self):
        assert self.path == "/v1/models/few_shot:predict"
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert request.keys() == {"signature_name", "inputs"}
        signature = self.signatures[request["signature_name"]]
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


@pytest.fixture
def url():
    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/models/few_shot"
    server.shutdown()
    thread.join()
    server.server_close()


def query_paths():
    return sorted((EPISODE / "query").glob("*/*.png"))


class GrpcServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The same over gRPC; what a request leaves out is as in the model."""

    model = tf.saved_model.load(str(MODEL))

    def Predict(self, request, context):
        assert request.model_spec.name == "few_shot"
        function = getattr(self.model, request.model_spec.signature_name)
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        try:
            outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        answer = predict_pb2.PredictResponse()
        for name in request.output_filter:
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name].numpy()))
        return answer


@pytest.fixture
def address():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(GrpcServer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


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
    assert model.name == grpc_client.adapt_request({}).model_spec.name


def test_all_of_the_probabilities(url):
    classes = rest.class_folders(EPISODE / "support")
    adapted = rest.ask(url, rest.adapt_request(classes, 5))
    answer = rest.ask(url, rest.predict_request(adapted, query_paths()))
    names, rows = expected()
    assert answer["class_names"] == names
    wanted = [rows[path.relative_to(EPISODE / "query").as_posix()] for path in query_paths()]
    np.testing.assert_allclose(answer["probabilities"], wanted, atol=1e-5)


def test_folders(tmp_path):
    with pytest.raises(SystemExit, match="is not a folder"):
        rest.class_folders(tmp_path / "none")
    with pytest.raises(SystemExit, match="has no class folders"):
        rest.class_folders(tmp_path)
    for name in ("cat/.DS_Store", "cat/0.png", ".cache/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert rest.class_folders(tmp_path) == {"cat": [tmp_path / "cat/0.png"]}
    (tmp_path / "dog").mkdir()
    with pytest.raises(SystemExit, match="dog holds no image"):
        rest.class_folders(tmp_path)
