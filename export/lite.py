"""Runs a classifier of to_lite.py with LiteRT. Needs numpy, and ai-edge-litert or tensorflow."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from folders import ClientError

PREDICT = "predict.tflite"
"""The file of a classifier, beside its classifier.json."""

_INTERPRETERS = (("ai_edge_litert.interpreter", "Interpreter"), ("tensorflow", "lite.Interpreter"))


def load_lite(directory: Path) -> Callable[..., dict[str, Any]]:
    """Returns a function from query_images, float32 [B, h, w, c], to arrays by name.

    Args:
        directory: the folder that to_lite.py wrote.

    Raises:
        ClientError: LiteRT is not installed, or the file is damaged.
    """
    try:
        # TensorFlow warns that its own interpreter will move to the other package.
        with warnings.catch_warnings(action="ignore"):
            return _interpreter()(model_path=str(directory / PREDICT)).get_signature_runner(
                "predict"
            )
    except (RuntimeError, ValueError) as error:
        raise ClientError(f"{directory / PREDICT} cannot be loaded ({error}).") from error


def _interpreter() -> Any:
    for module, name in _INTERPRETERS:
        try:
            interpreter = importlib.import_module(module)
        except ImportError:
            continue
        for part in name.split("."):
            interpreter = getattr(interpreter, part)
        return interpreter
    raise ClientError("LiteRT is needed: pip install ai-edge-litert")
