"""Converts an exported model for LiteRT, as phones and small devices run it.

    python to_lite.py --model DIR --out DIR [--quantize]

Writes predict.tflite, which needs LiteRT's own operations alone, and classify.tflite, which adapts
on the device: the gradients of its learner are TensorFlow's operations, so that it needs the
"select TF ops" (Flex) library beside LiteRT. Needs tensorflow, and nothing of ours.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIGNATURES = {"predict": False, "classify": True}  # whether it needs TensorFlow's operations


def convert(model: Path, signature: str, quantize: bool = False) -> bytes:
    """Returns one signature of a SavedModel as a LiteRT model.

    Args:
        model: folder of the SavedModel.
        signature: "predict" or "classify".
        quantize: keep constant weights in 8 bits.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(model), signature_keys=[signature])
    operations: list[Any] = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if SIGNATURES[signature]:
        operations.append(tf.lite.OpsSet.SELECT_TF_OPS)
    converter.target_spec.supported_ops = operations
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=_path, required=True, help="folder of the exported model")
    parser.add_argument("--out", type=_path, required=True, help="where to write")
    parser.add_argument("--quantize", action="store_true", help="constant weights in 8 bits")
    options = parser.parse_args(arguments)
    if not (options.model / "saved_model.pb").is_file():
        print(f"error: --model {options.model} is no exported model.", file=sys.stderr)
        return 1
    paths = [options.out / f"{signature}.tflite" for signature in SIGNATURES]
    for path in paths:
        if path.exists():
            print(f"error: {path} exists already, and nothing is overwritten.", file=sys.stderr)
            return 1
    converted = {path: convert(options.model, path.stem, options.quantize) for path in paths}
    options.out.mkdir(parents=True, exist_ok=True)
    for path, contents in converted.items():
        path.write_bytes(contents)
        needs = "LiteRT and select TF ops" if SIGNATURES[path.stem] else "LiteRT"
        print(f"Wrote {path}: {len(contents) / 1e3:.0f} kB, needs {needs}")
    return 0


def _path(text: str) -> Path:
    return Path(text).expanduser()


if __name__ == "__main__":
    sys.exit(main())
