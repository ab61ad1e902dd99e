"""Parts of TensorFlow Serving's REST and gRPC interfaces, in this process."""

import base64
import concurrent.futures
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)


def decoded(value):
    """Decodes as TensorFlow Serving does: a number, a text, {"b64": ...}, or a list of such."""
    if isinstance(value, list):
        return [decoded(one) for one in value]
    if isinstance(value, dict):
        assert value.keys() == {"b64"}
        return base64.b64decode(value["b64"], validate=True)
    return value


def encoded(values):
    return [one.decode() if isinstance(one, bytes) else one for one in values.tolist()]


class Served:
    """A model, and the server's description of its signatures."""

    def __init__(self, folder):
        self.model = tf.saved_model.load(str(folder))
        contents = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        self.definitions = get_model_metadata_pb2.SignatureDefMap()
        for name, found in contents.meta_graphs[0].signature_def.items():
            self.definitions.signature_def[name].CopyFrom(found)


class Server(BaseHTTPRequestHandler):
    """The part of TensorFlow Serving's REST interface that our client uses."""

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
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/models/few_shot"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class GrpcServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The same over gRPC. A request may leave out the outputs; then it gets all of them."""

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
        for name in request.output_filter or outputs:
            answer.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name].numpy()))
        return answer


@contextlib.contextmanager
def grpc_server(served):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    servicer = GrpcServer(served)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
