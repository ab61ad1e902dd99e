"""Adapts a model on TensorFlow Serving and classifies images, over its REST interface.

    python rest.py --url URL --support DIR --num_steps 5 --query FILE...

URL is http://HOST:8501/v1/models/few_shot, with the name of the model from models.config.

The server stores no state, so each `predict` request contains outputs of `adapt`; the metadata of
the server say which. Images are sent as files, and classes by their names. Needs Python, and the
files of the folder above; warnings about pictures need numpy and pillow.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

import sending
import served_model
from folders import (
    MAX_STEPS,
    ClientError,
    check_number,
    class_files,
    num_steps_of,
    print_any_name,
    query_files,
    read,
    run_client,
    user_path,
)
from sending import ServerError

ADAPT, PREDICT = "adapt_encoded_named", "predict_encoded_named"
_TIMEOUT = 60  # seconds; the first request waits for the server to warm up

Signatures = Mapping[str, Mapping[str, Any]]


def signatures(url: str) -> Signatures:
    """Returns the signatures of the served model by name, each with its "inputs" by name."""
    signature_defs = _answer(f"{url}/metadata")["metadata"]["signature_def"]["signature_def"]
    if not {"adapt", ADAPT, PREDICT} <= signature_defs.keys():
        raise ClientError(
            f"The model at {url} has no signatures {ADAPT} and {PREDICT}: expected a model of "
            "images that python -m tf_metalstm.export wrote."
        )
    return signature_defs


def image_shape(model: Signatures) -> list[int]:
    """Returns (h, w, c) of the images of the served model."""
    sides = model["adapt"]["inputs"]["support_images"]["tensor_shape"]["dim"]
    return [int(side["size"]) for side in sides[1:]]


def num_way(model: Signatures) -> int | None:
    """Returns the largest number of classes of the served model; None for any number."""
    [side] = model["adapt"]["outputs"]["class_mask"]["tensor_shape"]["dim"]
    return int(side["size"]) if int(side["size"]) > 0 else None


def adapt_request(
    model: Signatures, classes: Mapping[str, Sequence[Path]], num_steps: int | None = None
) -> dict[str, Any]:
    """Returns the body of a request to adapt.

    Args:
        model: the result of `signatures`.
        classes: the image files of each class.
        num_steps: number of updates, for a model that makes updates; its manifest has the number
            in training.
    """
    learns_by_updates = "num_steps" in model[ADAPT]["inputs"]
    if learns_by_updates and num_steps is None:
        raise ClientError(
            "This model learns by updates: give --num_steps; its manifest.json says how many it "
            "was trained with."
        )
    if not learns_by_updates and num_steps is not None:
        raise ClientError("--num_steps is for models that learn by updates; this one does not.")
    pairs = [(path, name) for name, paths in classes.items() for path in paths]
    inputs: dict[str, Any] = {
        "support_images": [_bytes(path) for path, _ in pairs],
        "support_labels": [name for _, name in pairs],
    }
    if learns_by_updates:
        inputs["num_steps"] = num_steps
    return {"signature_name": ADAPT, "inputs": inputs}


def predict_request(
    model: Signatures, adapted: Mapping[str, Any], queries: Iterable[Path]
) -> dict[str, Any]:
    """Returns the body of a request to classify images.

    Args:
        model: the result of `signatures`.
        adapted: the "outputs" of the answer to `adapt_request`.
        queries: image files.
    """
    state = {name: adapted[name] for name in model[PREDICT]["inputs"] if name != "query_images"}
    inputs = {"query_images": [_bytes(path) for path in queries], **state}
    return {"signature_name": PREDICT, "inputs": inputs}


def ask(url: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Sends a request; returns the outputs of the answer."""
    return _answer(f"{url}:predict", json.dumps(request).encode())["outputs"]


def as_loaded(url: str, model: Signatures) -> served_model.ServedModel:
    """Returns the served model in the form of a loaded model; its calls need numpy."""

    def call(signature: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        import numpy as np

        lists = {name: _in_json(np.asarray(array).tolist()) for name, array in inputs.items()}
        outputs = ask(url, {"signature_name": signature, "inputs": lists})
        return {name: np.asarray(value) for name, value in outputs.items()}

    return served_model.ServedModel(
        {name: list(one.get("inputs", ())) for name, one in model.items()}, call
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://localhost:8501/v1/models/few_shot")
    parser.add_argument(
        "--support", type=user_path, required=True, help="a folder of images for each class"
    )
    parser.add_argument("--query", nargs="+", required=True, help="images: files or folders")
    parser.add_argument(
        "--num_steps",
        type=num_steps_of,
        help=f"updates, 0 to {MAX_STEPS}; the manifest has those of training",
    )
    parser.add_argument(
        "--skip_corrupt", action="store_true", help="leave out files that cannot be read"
    )
    served_model.add_flags(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the client."""
    print_any_name()
    try:
        options = _parser().parse_args(arguments)
        url, skip = options.url.rstrip("/"), options.skip_corrupt
        classes = class_files(options.support)
        names = served_model.known_names(classes, options)
        queries = [path for _, path in query_files(options.query, names)[0]]
        model = signatures(url)
        check_number(options.support, len(classes), num_way(model))
        adapted, support = sending.adapted(
            lambda c: ask(url, adapt_request(model, c, options.num_steps)), classes, skip
        )
        answer, queries = sending.answered(
            lambda q: ask(url, predict_request(model, adapted, q)), queries, skip
        )
        sending.warn_of(support, queries, image_shape(model))
        is_foreign = served_model.foreign(as_loaded(url, model), support, queries, options)
    except ServerError as error:
        raise SystemExit(f"error: the server says: {error}") from error
    except ClientError as error:
        raise SystemExit(f"error: {error}") from error
    rows = zip(queries, answer["labels"], answer["probabilities"], is_foreign, strict=True)
    for path, name, probabilities, foreign in rows:
        label = served_model.NONE_OF_THESE if foreign else name
        print(f"{path}\t{label}\t{max(probabilities):.2%}")


def _answer(url: str, body: bytes | None = None) -> dict[str, Any]:
    sent = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(sent, timeout=_TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ServerError(_said(error.read())) from error
    except OSError as error:
        raise ClientError(f"{url} does not answer ({getattr(error, 'reason', error)}).") from error


def _said(body: bytes) -> str:
    """Returns the text of an error answer."""
    try:
        return json.loads(body)["error"]
    except (KeyError, TypeError, ValueError):
        return body.decode(errors="replace")


def _bytes(path: Path) -> Any:
    return _in_json(read(path))


def _in_json(value: Any) -> Any:
    """Returns a value, or a list of values, in the form of JSON for TensorFlow Serving."""
    if isinstance(value, list):
        return [_in_json(one) for one in value]
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


if __name__ == "__main__":
    run_client(main)
