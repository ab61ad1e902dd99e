"""Converts an exported model for LiteRT, which runs on phones and small devices.

    python to_lite.py --model DIR --out DIR [--quantize] [--page NODE_MODULES]

It writes predict.tflite, which only needs LiteRT's own operations, and classify.tflite, which
adapts on the device. The gradients in classify.tflite use operations of TensorFlow, so it also
needs the library "select TF ops" (Flex). For an adapted classifier of `adapt.py --save` it only
writes predict.tflite, from pixels to names, probabilities and "none of these".

With --page it also writes the folder `page` for such a classifier: a page that runs it in the
browser. Any server of files can serve the folder. NODE_MODULES is the folder that
`npm install @litertjs/core` made.

The script needs tensorflow, and the files estimate.py, folders.py, lite_page.py, remarks.py and
saved_classifier.py of this folder, for --page also the folder page.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from folders import ClientError, print_any_name, read, run_client, user_path
from lite_page import PAGE, convert_one, facts_with_sentences, page_files
from saved_classifier import CLASSIFIER

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIGNATURES = {"predict": False, "classify": True}  # whether it needs operations of TensorFlow


def convert(model: Path, signature: str, quantize: bool = False) -> bytes:
    """Returns one signature of a SavedModel as a LiteRT model.

    Args:
        model: folder of the SavedModel.
        signature: "predict" or "classify".
        quantize: whether constant weights are stored in 8 bits.
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model",
        type=user_path,
        required=True,
        help="folder of the exported model, or of an adapted classifier",
    )
    parser.add_argument("--out", type=user_path, required=True, help="folder for the results")
    parser.add_argument("--quantize", action="store_true", help="store constant weights in 8 bits")
    parser.add_argument(
        "--page",
        type=user_path,
        metavar="NODE_MODULES",
        help="also write a page for the browser; the folder node_modules with @litertjs/core",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    print_any_name()
    try:
        options = _parser().parse_args(arguments)
        _run(options.model, options.out, options.quantize, options.page)
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(model: Path, out: Path, quantize: bool, node_modules: Path | None) -> None:
    if not (model / "saved_model.pb").is_file():
        raise ClientError(f"--model {model} is no exported model.")
    only_answers = (model / CLASSIFIER).is_file()
    if node_modules and not only_answers:
        raise ClientError(f"--page needs an adapted classifier; {model} was not adapted yet.")
    names = {f"{name}.tflite": name for name in (["predict"] if only_answers else SIGNATURES)}
    # What `adapt.py predict --classifier` needs besides; the folder of the classifier has it.
    copied = [CLASSIFIER] if only_answers and out.resolve() != model.resolve() else []
    for name in [*names, *copied, *([PAGE] if node_modules else [])]:
        if (out / name).exists():
            raise ClientError(f"{out / name} exists already, and nothing is overwritten.")
    files = {name: read(model / name) for name in copied}
    shown = page_files(node_modules) if node_modules else {}
    try:
        files |= {name: convert(model, signature, quantize) for name, signature in names.items()}
        if node_modules:
            shown["predict.tflite"] = convert_one(model, quantize)
            shown[CLASSIFIER] = facts_with_sentences(read(model / CLASSIFIER))
    except Exception as error:  # an incomplete file can raise any error
        raise ClientError(_why_not(model, error)) from error
    _write(out, files | {f"{PAGE}/{name}": contents for name, contents in shown.items()})
    for name, signature in names.items():
        needs = "LiteRT and select TF ops" if SIGNATURES[signature] else "LiteRT"
        print(f"Wrote {out / name}: {len(files[name]) / 1e3:.0f} kB, needs {needs}")
    if node_modules:
        print(f"Wrote {out / PAGE}: python -m http.server --directory {out / PAGE} serves it")


def _why_not(model: Path, error: Exception) -> str:
    """Returns the sentence about a model that cannot be converted."""
    if "tensor list ops" in str(error):  # a loop over the queries
        return (
            f"LiteRT cannot run the model in {model}: its method has a loop, as relation networks "
            "and siamese networks do. Take a model of another method."
        )
    return (
        f"The model in {model} cannot be converted; is the copy complete? "
        f"({type(error).__name__}: {str(error).strip()[:300]})"
    )


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    """Writes new files and folders into a folder, all of them or none.

    Args:
        out: the folder; is created if it does not exist.
        files: path in the folder -> contents; the first part of each path does not exist yet.
    """
    partial = out / f".{os.getpid()}.partial"
    made: list[Path] = []
    done = False
    path = out
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, contents in files.items():
            path = out / name
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(contents)
        for whole in sorted(partial.iterdir()):
            path = out / whole.name
            made.append(whole.rename(path))
        done = True
    except OSError as error:
        raise ClientError(f"{path} cannot be written ({error.strerror}).") from error
    finally:
        for one in [partial, *([] if done else made)]:
            shutil.rmtree(one, ignore_errors=True)
            with contextlib.suppress(OSError):  # the first error is the one to report
                one.unlink(missing_ok=True)


if __name__ == "__main__":
    run_client(main)
