"""Adapts and asks a model that TensorFlow Serving serves, over its REST interface.

    python rest.py --url URL --support DIR --num_steps 5 --query FILE...

URL is http://HOST:8501/v1/models/few_shot, with the name of the model from models.config.

The server keeps no state: what `adapt` answered is sent along with every `predict`. Images go as
they are on the disk, classes by their names. Needs Python, and the file folders.py beside it.
"""

from __future__ import annotations

import argparse
import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from folders import class_folders, read

_TIMEOUT = 60  # seconds; the first request waits for the server to warm up


def adapt_request(classes: Mapping[str, Sequence[Path]], num_steps: int) -> dict[str, Any]:
    """Returns the body of a request to adapt.

    Args:
        classes: the image files of each class.
        num_steps: updates; the manifest of the model says how many it was trained with.
    """
    pairs = [(path, name) for name, paths in classes.items() for path in paths]
    inputs = {
        "support_images": [_bytes(path) for path, _ in pairs],
        "support_labels": [name for _, name in pairs],
        "num_steps": num_steps,
    }
    return {"signature_name": "adapt_encoded_named", "inputs": inputs}


def predict_request(adapted: Mapping[str, Any], queries: Iterable[Path]) -> dict[str, Any]:
    """Returns the body of a request to classify images.

    Args:
        adapted: the "outputs" of the answer to `adapt_request`.
        queries: image files.
    """
    state = {name: adapted[name] for name in ("parameters", "statistics", "class_names")}
    inputs = {"query_images": [_bytes(path) for path in queries], **state}
    return {"signature_name": "predict_encoded_named", "inputs": inputs}


def ask(url: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Sends a request; returns the outputs of the answer."""
    body = json.dumps(request).encode()
    sent = urllib.request.Request(f"{url}:predict", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(sent, timeout=_TIMEOUT) as answer:
            return json.load(answer)["outputs"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"error: the server says: {error.read().decode()}") from error
    except urllib.error.URLError as error:
        raise SystemExit(f"error: {url} does not answer ({error.reason}).") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the client."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://localhost:8501/v1/models/few_shot")
    parser.add_argument("--support", type=Path, required=True, help="one folder of images a class")
    parser.add_argument("--query", type=Path, nargs="+", required=True, help="image files")
    parser.add_argument(
        "--num_steps", type=int, required=True, help="updates; the manifest has those of training"
    )
    options = parser.parse_args(arguments)
    classes = class_folders(options.support)
    adapted = ask(options.url, adapt_request(classes, options.num_steps))
    answer = ask(options.url, predict_request(adapted, options.query))
    rows = zip(options.query, answer["labels"], answer["probabilities"], strict=True)
    for path, name, probabilities in rows:
        print(f"{path}\t{name}\t{max(probabilities):.2%}")


def _bytes(path: Path) -> dict[str, str]:
    # What is no text travels so in TensorFlow Serving's JSON.
    return {"b64": base64.b64encode(read(path)).decode()}


if __name__ == "__main__":
    main()
