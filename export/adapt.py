"""Adapts an exported model to a few labelled images and classifies others with it.

    python adapt.py --model DIR --support DIR --query DIR [--csv FILE] [--html FILE] [--save DIR]
    python adapt.py check --model DIR --support DIR
    python adapt.py predict --classifier DIR --query DIR [--csv FILE] [--html FILE]

The first command adapts, estimates the accuracy, and classifies the queries. `check` only estimates
the accuracy and names support pictures that look mislabelled. `predict` classifies with an adapted
classifier that --save wrote.

--model    folder that `python -m tf_metalstm.export` wrote: saved_model.pb and manifest.json.
--support  a few labelled images: a folder for each class; some models limit the number of classes.
--query    images to classify: files, folders or patterns. If a folder has a folder for each class,
           the accuracy is printed too; with --none_of_these one of these folders may have the name
           "none of these".

There are warnings about pictures that make answers unreliable, such as blank or equal pictures, and
queries that are among the support images; see `remarks.py`. `estimate.py` estimates the accuracy.

The script needs tensorflow, numpy and pillow, and the other files of this folder.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import remarks
import report
from adapted import Adapted, call
from estimate import FALSE_ALARMS, Estimate, for_json, sentences, softmax, threshold
from folders import (
    MAX_STEPS,
    ClientError,
    check_number,
    class_files,
    num_steps_of,
    print_any_name,
    query_files,
    run_client,
    user_path,
    warn,
)
from images import looked_at, read_images, read_support
from lite import PREDICT, load_lite
from saved_classifier import CLASSIFIER
from saved_classifier import FORMAT as CLASSIFIER_FORMAT
from served_model import NONE_OF_THESE, known_names, share

FORMAT = "tf_metalstm.saved_model"
FORMAT_VERSION = 2

_QUERIES_AT_A_TIME = 64
_ROWS_BESIDE_FILES = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the client; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"adapt": _adapt, "check": _adapt, "predict": _predict}
    command = words.pop(0) if words and words[0] in commands else "adapt"
    print_any_name()
    try:
        commands[command](_parser(command).parse_args(words))
        sys.stdout.flush()
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader has ended, as in `adapt.py ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # for example no space for the output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: the answers cannot be printed ({error}).", file=sys.stderr)
        return 1
    return 0


def _adapt(options: argparse.Namespace) -> None:
    """Adapts, estimates the accuracy, and classifies queries if there are any."""
    manifest = read_manifest(options.model)
    shape = manifest["image_shape"]
    num_steps = _num_steps(options.num_steps, manifest)
    classes = class_files(options.support)
    check_number(options.support, len(classes), manifest.get("num_way"))
    queries, known = query_files(options.query or [], known_names(classes, options))
    _check_outputs(options)
    images, labels, paths = read_support(classes, shape)
    looks = [remarks.look_at(str(p), n, i) for p, n, i in zip(paths, labels, images, strict=True)]
    batch_size = manifest.get("method_settings", {}).get("support_batch_size")
    large = remarks.of_size(len(images), shape, num_steps is not None, batch_size)
    said = warn([*remarks.of_support(looks), *large])
    adapted = Adapted(load_model(options.model), images, labels, num_steps)
    print(f"Adapted to {len(images)} images of {len(classes)} classes.")
    asks_itself = not options.no_estimate or options.calibrated or options.none_of_these
    estimate = adapted.estimate() if asks_itself else None
    expected = _in_words(estimate, adapted, [str(path) for path in paths])
    for sentence in expected:
        print(sentence)
    temperature = estimate.temperature if estimate and options.calibrated else 1.0
    asked: list[remarks.Look] = []
    read_queries = looked_at(read_images((path for _, path in queries), shape), asked)
    read, probabilities, near = _answered(
        lambda pixels: _calibrated(adapted, pixels, temperature), read_queries
    )
    if queries:
        said += warn(remarks.of_queries(looks, asked))
    limit = _limit(estimate.nearness, options.none_of_these) if estimate else -math.inf
    result = report.Report(
        model=options.model,
        class_names=adapted.class_names,
        support=list(zip(paths, labels, strict=True)),
        support_losses=adapted.losses,
        answers=_named(queries, known, read, adapted.class_names, probabilities, near < limit),
        remarks=said,
        expected=expected,
        estimate=for_json(estimate) if estimate else None,
    )
    _write(result, options)
    if options.save:
        if estimate is None:
            estimate = adapted.estimate()
        limit = _limit(estimate.nearness, options.none_of_these or FALSE_ALARMS)
        adapted.save(options.save, estimate, temperature, limit)
        print(f"Wrote {options.save}")


def _predict(options: argparse.Namespace) -> None:
    """Classifies with a saved classifier."""
    facts = _read_classifier(options.classifier)
    names = facts["class_names"]
    queries, known = query_files(options.query, known_names(names, options))
    _check_outputs(options)
    asked: list[remarks.Look] = []
    images = read_images((path for _, path in queries), facts["image_shape"])
    ask = _asker(options.classifier)
    read, probabilities, near = _answered(ask, looked_at(images, asked))
    said = warn(remarks.of_queries([], asked))
    limit = _limit(np.array(facts["nearness"]), options.none_of_these)
    result = report.Report(
        model=options.classifier,
        class_names=names,
        support=[],
        support_losses=[],
        answers=_named(queries, known, read, names, probabilities, near < limit),
        remarks=said,
        expected=[],
        estimate=facts["estimate"],
    )
    _write(result, options)


def _asker(directory: Path) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Returns a function from pixels to probabilities and nearness, of a saved classifier."""
    if (directory / PREDICT).is_file():
        lite = load_lite(directory)

        def ask_lite(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            answer = lite(query_images=pixels)
            return answer["probabilities"], answer["nearness"]

        return ask_lite
    model = load_model(directory, ("predict", "predict_encoded"))

    def ask(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answer = call(model, "predict", query_images=pixels)
        return answer["probabilities"].numpy(), answer["nearness"].numpy()

    return ask


def _in_words(estimate: Estimate | None, adapted: Adapted, paths: Sequence[str]) -> list[str]:
    if estimate is None:
        return []
    return sentences(estimate, adapted.numbers, paths, adapted.class_names)


def _limit(nearness: np.ndarray, false_alarms: float | None) -> float:
    """Returns the nearness below which a picture belongs to no class; default: minus infinity."""
    return -math.inf if false_alarms is None else threshold(nearness, false_alarms)


def _calibrated(
    adapted: Adapted, pixels: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    answers = adapted.answers(pixels)
    return softmax(answers.logits / temperature), answers.near


def _answered(
    ask: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    images: Iterator[tuple[Path, np.ndarray]],
) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Returns files, probabilities [files, classes] and nearness; reads a few files at a time."""
    files: list[Path] = []
    answers: list[tuple[np.ndarray, np.ndarray]] = []
    while chunk := list(itertools.islice(images, _QUERIES_AT_A_TIME)):
        files.extend(file for file, _ in chunk)
        answers.append(ask(np.stack([image for _, image in chunk])))
    if not files:
        return [], np.zeros([0, 1]), np.zeros([0])
    probabilities, near = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    return files, probabilities.astype(np.float64), near


def _named(
    queries: Sequence[tuple[str, Path]],
    known: Mapping[Path, str],
    read: Sequence[Path],
    names: Sequence[str],
    probabilities: np.ndarray,
    is_foreign: np.ndarray,
) -> list[report.Answer]:
    """Returns the answers for files that can be read.

    Raises:
        ClientError: there are files, and none can be read.
    """
    if queries and not read:
        raise ClientError("None of the images to classify can be read.")
    shown = {path: name for name, path in queries}
    return [
        report.Answer(
            shown[path],
            path,
            NONE_OF_THESE if foreign else names[int(np.argmax(row))],
            row,
            known.get(path),
        )
        for path, row, foreign in zip(read, probabilities, is_foreign, strict=True)
    ]


def _write(result: report.Report, options: argparse.Namespace) -> None:
    """Writes the files that the flags name, and prints the table."""
    texts = {"csv": report.csv_text, "json": report.json_text, "html": report.html_text}
    outputs = {kind: getattr(options, kind) for kind in texts if getattr(options, kind)}
    for kind, path in outputs.items():
        report.write(path, texts[kind](result))
    if result.answers:
        report.print_table(result, _ROWS_BESIDE_FILES if outputs else len(result.answers))
    for path in outputs.values():
        print(f"Wrote {path}")


def _read_classifier(directory: Path) -> dict[str, Any]:
    """Returns the facts of a saved classifier, from its classifier.json."""
    try:
        facts = json.loads((directory / CLASSIFIER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClientError(
            f"--classifier {directory} is no adapted classifier ({error}): expected the folder "
            "that --save wrote."
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != CLASSIFIER_FORMAT:
        raise ClientError(f"{directory / CLASSIFIER} is not that of a {CLASSIFIER_FORMAT}.")
    return facts


def read_manifest(directory: Path) -> dict[str, Any]:
    """Returns the manifest of an exported model."""
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
        raise ClientError(f"{directory} takes numbers, and this client adapts to images.")
    return manifest


def load_model(
    directory: Path,
    needed: Sequence[str] = ("adapt_named", "predict_named", "predict_encoded_named"),
) -> Any:
    """Returns an exported model.

    Args:
        directory: its folder.
        needed: signatures that it must have.
    """
    tensorflow = _import_tensorflow()
    try:
        model = tensorflow.saved_model.load(str(directory))
        for name in needed:
            model.signatures[name]
    except Exception as error:  # an incomplete file can raise any error
        raise ClientError(
            f"The model in {directory} cannot be loaded; is the copy complete? "
            f"({type(error).__name__}: {str(error).strip()[:300]})"
        ) from error
    return model


def _num_steps(asked: int | None, manifest: dict[str, Any]) -> int | None:
    """Returns the number of updates; None for a model without updates."""
    trained = manifest.get("num_steps")
    if asked is not None and trained is None:
        raise ClientError("--num_steps is for models that learn by updates; this one does not.")
    return trained if asked is None else asked


def _check_outputs(options: argparse.Namespace) -> None:
    taken: set[Path] = set()
    for flag in ("csv", "json", "html", "save"):
        path = getattr(options, flag, None)
        if not path:
            continue
        if not path.absolute().parent.is_dir():
            raise ClientError(f"--{flag} {path}: there is no such folder.")
        if path.exists() or path.absolute() in taken:
            raise ClientError(f"--{flag} {path} exists already, and nothing is overwritten.")
        taken.add(path.absolute())


def _import_tensorflow() -> Any:
    """Returns TensorFlow; hides what it prints about the machine during the import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # the kernels that the model was trained on
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    on_main = threading.current_thread() is threading.main_thread()
    # Ctrl-C ends the process here; during an import it would look like a broken package.
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL) if on_main else None
    try:
        with _without_keras():
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


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Keeps TensorFlow from importing Keras, which takes two seconds and which no export needs."""
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  # an import then raises ImportError
    try:
        yield
    finally:
        del sys.modules["keras"]


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command == "predict":
        parser.add_argument(
            "--classifier",
            type=user_path,
            required=True,
            help="folder that --save wrote, or to_lite.py from it",
        )
    else:
        parser.add_argument(
            "--model", type=user_path, required=True, help="folder of the exported model"
        )
        parser.add_argument(
            "--support", type=user_path, required=True, help="a folder of images for each class"
        )
        parser.add_argument(
            "--num_steps",
            type=num_steps_of,
            help=f"updates, 0 to {MAX_STEPS}; by default as in training",
        )
    if command == "check":
        parser.set_defaults(query=[], calibrated=False, none_of_these=None, no_estimate=False)
        parser.set_defaults(csv=None, html=None, save=None)
    else:
        _add_answers(parser, command)
    parser.add_argument("--json", type=user_path, help="write all results as JSON")
    return parser


def _add_answers(parser: argparse.ArgumentParser, command: str) -> None:
    """Adds the flags about queries and answers."""
    parser.add_argument(
        "--query",
        nargs="+",
        required=command == "predict",
        help="images: files, folders, or patterns as 'a/*.jpg'",
    )
    parser.add_argument(
        "--none_of_these",
        type=share,
        nargs="?",
        const=FALSE_ALARMS,
        metavar="SHARE",
        help='answer "none of these" for pictures of other things; this share of your own pictures '
        f"may get that answer by mistake, default {FALSE_ALARMS}",
    )
    parser.add_argument("--csv", type=user_path, help="write all probabilities as CSV")
    parser.add_argument("--html", type=user_path, help="write a page with pictures")
    if command == "predict":
        return
    parser.add_argument(
        "--calibrated",
        action="store_true",
        help="give calibrated probabilities instead of those of the model",
    )
    parser.add_argument(
        "--no_estimate",
        action="store_true",
        help="do not estimate the accuracy; the estimate takes up to five more adaptations of a "
        "model that learns by updates",
    )
    parser.add_argument(
        "--save", type=user_path, help="write the adapted classifier as a SavedModel"
    )


if __name__ == "__main__":
    run_client(main)
