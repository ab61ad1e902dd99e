"""Adapts an exported model to a few labelled images and classifies others with it.

    python adapt.py --model DIR --support DIR --query DIR [--csv FILE] [--html FILE] [--save DIR]

--model    what `python -m tf_metalstm.export` wrote: saved_model.pb and manifest.json.
--support  a few labelled images: one folder a class, at most as many as the model has ways.
--query    images to classify: files, folders or patterns. Where a folder holds one folder a
           class, the accuracy is printed too.

Pictures that make answers worth little are warned of: blank or equal ones, queries that are among
the support images, and the like; `remarks.py` has the list.

Needs tensorflow, numpy and pillow, the files beside it, and nothing else of ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import remarks
import report
from folders import (
    MAX_STEPS,
    ClientError,
    check_num_steps,
    class_files,
    print_any_name,
    query_files,
    run_client,
    sentence,
    user_path,
    warn,
)
from images import looked_at, read_images, read_support

FORMAT = "tf_metalstm.saved_model"
FORMAT_VERSION = 2

_QUERIES_AT_A_TIME = 64
_ROWS_BESIDE_FILES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the client; returns its exit code."""
    print_any_name()
    try:
        _run(_parser().parse_args(arguments))
        sys.stdout.flush()
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has seen enough, as in `adapt.py ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # that there is no room for what is printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: the answers cannot be printed ({error}).", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    manifest = read_manifest(options.model)
    shape = manifest["image_shape"]
    num_steps = _num_steps(options.num_steps, manifest)
    classes = class_files(options.support)
    _check_number(options.support, len(classes), manifest.get("num_way"))
    queries, known = query_files(options.query, list(classes))
    _check_outputs(options)
    images, labels, paths = read_support(classes, shape)
    looks = [remarks.look_at(str(p), n, i) for p, n, i in zip(paths, labels, images, strict=True)]
    batch_size = manifest.get("method_settings", {}).get("support_batch_size")
    large = remarks.of_size(len(images), shape, num_steps is not None, batch_size)
    said = warn([*remarks.of_support(looks), *large])
    model = load_model(options.model)
    state, losses = adapt(model, images, labels, num_steps)
    print(f"Adapted to {len(images)} images of {len(classes)} classes.")
    asked: list[remarks.Look] = []
    read_queries = looked_at(read_images((path for _, path in queries), shape), asked)
    names, read, probabilities = classify(model, state, read_queries)
    said += warn(remarks.of_queries(looks, asked))
    shown = {path: name for name, path in queries}
    answers = [
        report.Answer(shown[path], path, names[np.argmax(row)], row, known.get(path))
        for path, row in zip(read, probabilities, strict=True)
    ]
    support = list(zip(paths, labels, strict=True))
    result = report.Report(options.model, names, support, losses, answers, said)
    texts = (report.csv_text, report.json_text, report.html_text)
    paths_of_texts = (options.csv, options.json, options.html)
    wanted = [(path, text) for path, text in zip(paths_of_texts, texts, strict=True) if path]
    for path, text in wanted:
        report.write(path, text(result))
    report.print_table(result, _ROWS_BESIDE_FILES if wanted else len(answers))
    if options.save:
        save_classifier(model, state, options.save)
    for path in (*paths_of_texts, options.save):
        if path:
            print(f"Wrote {path}")


def read_manifest(directory: Path) -> dict[str, Any]:
    """Returns what an exported model says about itself."""
    missing = [n for n in ("saved_model.pb", "manifest.json") if not (directory / n).is_file()]
    if missing:
        raise ClientError(
            f"--model {directory} is no exported model, it lacks {' and '.join(missing)}: expected "
            "the folder RUN_DIR/saved_model that python -m tf_metalstm.export writes."
        )
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClientError(f"{directory / 'manifest.json'} is damaged ({error}).") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ClientError(f"{directory / 'manifest.json'} is not that of a {FORMAT}.")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise ClientError(
            f"{directory} has format version {version}, this client knows {FORMAT_VERSION}: take "
            "the client that belongs to the model, or export the run again."
        )
    if "image_shape" not in manifest:
        raise ClientError(f"{directory} is a model of functions, and this client adapts to images.")
    return manifest


def load_model(directory: Path) -> Any:
    """Returns an exported model."""
    tensorflow = _import_tensorflow()
    try:
        model = tensorflow.saved_model.load(str(directory))
        for name in ("adapt_named", "predict_named", "predict_encoded_named"):
            model.signatures[name]  # a model that lacks one is none
    except Exception as error:  # whatever a file with a piece missing leads to
        raise ClientError(
            f"The model in {directory} cannot be loaded; is the copy complete? "
            f"({type(error).__name__}: {str(error).strip()[:300]})"
        ) from error
    return model


def adapt(
    model: Any, images: np.ndarray, labels: Sequence[str], num_steps: int | None
) -> tuple[dict[str, Any], list[float]]:
    """Adapts to images [B, h, w, c] and the names of their classes.

    Returns:
        What the model learned, for `predict`; and the loss before each update.
    """
    steps = {} if num_steps is None else {"num_steps": np.int32(num_steps)}
    names = [os.fsencode(name) for name in labels]
    adapted = _call(model, "adapt_named", support_images=images, support_labels=names, **steps)
    wanted = model.signatures["predict_named"].structured_input_signature[1]
    losses = adapted.get("support_losses")
    state = {name: value for name, value in adapted.items() if name in wanted}
    return state, [] if losses is None else losses.numpy().tolist()


def classify(
    model: Any, state: dict[str, Any], images: Iterator[tuple[Path, np.ndarray]]
) -> tuple[list[str], list[Path], np.ndarray]:
    """Returns classes, files and probabilities [files, classes]; a few at a time are in memory."""
    files: list[Path] = []
    rows: list[np.ndarray] = []
    while chunk := list(itertools.islice(images, _QUERIES_AT_A_TIME)):
        files.extend(file for file, _ in chunk)
        pixels = np.stack([image for _, image in chunk])
        answer = _call(model, "predict_named", query_images=pixels, **state)
        rows.extend(answer["probabilities"].numpy())
    if not files:
        raise ClientError("None of the images to classify can be read.")
    if not np.all(np.isfinite(rows)):
        raise ClientError("The model's answer is not a number: look at the support images.")
    names = [os.fsdecode(name) for name in state["class_names"].numpy()]
    return names, files, np.asarray(rows, np.float64)


def save_classifier(model: Any, state: dict[str, Any], directory: Path) -> None:
    """Writes a model that knows these classes and only answers.

    Its signatures are `predict` (query_images: pixels) and `predict_encoded` (files).
    """
    import tensorflow

    module = tensorflow.Module()
    module.state = dict(state)  # kept, or they would be gone when the functions are saved
    signatures = {}
    for name in ("predict", "predict_encoded"):
        whole = model.signatures[f"{name}_named"]
        spec = whole.structured_input_signature[1]["query_images"]

        @tensorflow.function(input_signature=[tensorflow.TensorSpec(spec.shape, spec.dtype)])
        def answer(query_images: Any, whole: Any = whole) -> Any:
            return whole(query_images=query_images, **state)

        signatures[name] = answer
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    try:
        tensorflow.saved_model.save(module, str(partial), signatures=signatures)
        partial.rename(directory)
    except (OSError, tensorflow.errors.OpError) as error:  # a full disk, one that is read only
        raise ClientError(f"--save {directory} cannot be written ({error}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _call(model: Any, signature: str, **tensors: Any) -> dict[str, Any]:
    """Calls a signature; what the model has to say of a wrong call is said as it is."""
    import tensorflow

    try:
        return model.signatures[signature](**tensors)
    except tensorflow.errors.InvalidArgumentError as error:
        raise ClientError(f"The model says: {sentence(error.message)}") from error


def _check_number(support: Path, found: int, num_way: int | None) -> None:
    """Raises an error unless the model can tell so many classes apart; None for any number."""
    if found < 2 or (num_way is not None and found > num_way):
        most = "2 or more" if num_way is None else f"2 to {num_way}"
        raise ClientError(
            f"{support} has {found} class folders, but the model tells {most} classes apart: add "
            "or take away some, or train a model with more ways."
        )


def _num_steps(asked: int | None, manifest: dict[str, Any]) -> int | None:
    """Returns the updates to make; None for a model that makes none."""
    check_num_steps(asked)
    trained = manifest.get("num_steps")
    if asked is not None and trained is None:
        raise ClientError("--num_steps is for models that learn by updates; this one does not.")
    return trained if asked is None else asked


def _check_outputs(options: argparse.Namespace) -> None:
    taken: set[Path] = set()
    for flag in ("csv", "json", "html", "save"):
        path = getattr(options, flag)
        if not path:
            continue
        if not path.absolute().parent.is_dir():
            raise ClientError(f"--{flag} {path}: there is no such folder.")
        if path.exists() or path.absolute() in taken:
            raise ClientError(f"--{flag} {path} exists already, and nothing is overwritten.")
        taken.add(path.absolute())


def _import_tensorflow() -> Any:
    """Returns TensorFlow, imported without what its C++ has to say about the machine."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # the kernels that the model was trained on
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    on_main = threading.current_thread() is threading.main_thread()
    # Ctrl-C ends the process: to an import it would look like a package that is broken.
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL) if on_main else None
    try:
        import tensorflow
    except ImportError as error:
        raise ClientError(f"{error}: pip install tensorflow numpy pillow") from error
    finally:
        if on_main:
            signal.signal(signal.SIGINT, handler)
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
    return tensorflow


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=user_path, required=True, help="folder of the exported model"
    )
    parser.add_argument(
        "--support", type=user_path, required=True, help="one folder of images a class"
    )
    parser.add_argument(
        "--query", nargs="+", required=True, help="images: files, folders, or patterns as 'a/*.jpg'"
    )
    parser.add_argument(
        "--num_steps", type=int, help=f"updates, 0 to {MAX_STEPS}; by default as in training"
    )
    parser.add_argument("--csv", type=user_path, help="write all probabilities to this file")
    parser.add_argument("--json", type=user_path, help="write them as JSON, with the losses")
    parser.add_argument("--html", type=user_path, help="write a page with pictures")
    parser.add_argument(
        "--save", type=user_path, help="write the adapted classifier, a new SavedModel"
    )
    return parser


if __name__ == "__main__":
    run_client(main)
