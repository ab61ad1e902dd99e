"""Adapts an exported model to a few labelled images and classifies others with it.

    python adapt.py --model DIR --support DIR --query DIR [--csv FILE]

--model    what `python -m tf_metalstm.export` wrote: saved_model.pb and manifest.json.
--support  a few labelled images: one folder a class, at most as many as the model has ways.
--query    images to classify: one folder of images; or one folder a class, then the accuracy
           is printed too.

Needs tensorflow, numpy and pillow, and nothing else of ours.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

FORMAT = "tf_metalstm.saved_model"
FORMAT_VERSION = 1

_QUERIES_AT_A_TIME = 64
_ROWS_BESIDE_CSV = 20
# What Pillow raises for bytes that are no image, or only half of one.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class ClientError(Exception):
    """Something that the user has to put right."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the client; returns its exit code."""
    options = _parser().parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):  # for file names that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _run(options)
        sys.stdout.flush()
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has seen enough, as in `adapt.py ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    manifest = read_manifest(options.model)
    shape, num_way, skip = manifest["image_shape"], manifest["num_way"], options.skip_unreadable
    support = class_folders(options.support)
    names = list(support)
    if not 2 <= len(names) <= num_way:
        raise ClientError(
            f"{options.support} has {len(names)} class folders, but the model tells 2 to {num_way} "
            "classes apart: add or take away some, or train a model with more ways."
        )
    queries, by_class = query_files(options.query, names)
    if options.csv and not options.csv.absolute().parent.is_dir():
        raise ClientError(f"--csv {options.csv}: there is no such folder.")
    images, labels = read_support(support, shape, skip)
    signatures = load_signatures(options.model)
    adapted = adapt(signatures, images, labels)
    print(f"Adapted to {len(images)} images of {len(names)} classes.")
    if len(names) < num_way:
        print(f"That is {len(names)} of its {num_way} ways: probabilities are renormalized.")
    query_images = read_images(queries, shape, skip)
    files, probabilities = classify(signatures, adapted, query_images, len(names))
    table = [
        (file.relative_to(options.query).as_posix(), names[np.argmax(row)], *row)
        for file, row in zip(files, probabilities, strict=True)
    ]
    if options.csv:
        write_csv(options.csv, names, table)
    print_table(table, _ROWS_BESIDE_CSV if options.csv else len(table))
    if by_class:
        hits = sum(file.parent.name == row[1] for file, row in zip(files, table, strict=True))
        print(f"accuracy: {hits / len(table):.2%} ({hits} of {len(table)} images)")
    if options.csv:
        print(f"Wrote {options.csv}: all {len(table)} images, with every probability.")


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
    if manifest["format_version"] > FORMAT_VERSION:
        raise ClientError(
            f"{directory} has format version {manifest['format_version']}, this client knows "
            f"{FORMAT_VERSION}: take the client that belongs to the model."
        )
    if "image_shape" not in manifest:
        raise ClientError(f"{directory} is a model of functions, and this client adapts to images.")
    return manifest


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Returns the image files of every class folder, all sorted."""
    folders, files = _entries(root)
    if not folders:
        raise ClientError(f"{root} has no class folders: expected {root}/<class>/<image>.")
    if files:
        raise ClientError(f"{files[0]} is in no class folder: move it into one, or away.")
    classes = {}
    for folder in folders:
        deeper, classes[folder.name] = _entries(folder)
        if deeper:
            raise ClientError(f"{deeper[0]} is a folder inside a class folder: expected images.")
        if not classes[folder.name]:
            raise ClientError(f"The class folder {folder} holds no image.")
    return classes


def query_files(root: Path, names: Sequence[str]) -> tuple[list[Path], bool]:
    """Returns the images to classify and whether their folders are their classes."""
    folders, files = _entries(root)
    if not folders:
        if not files:
            raise ClientError(f"{root} holds no image.")
        return files, False
    classes = class_folders(root)
    for name in classes:
        if name not in names:
            raise ClientError(
                f"{root / name} is none of the classes of the support folder ({', '.join(names)}): "
                "rename it, or put images of unknown class into one folder without class folders."
            )
    return list(itertools.chain.from_iterable(classes.values())), True


def read_support(
    support: dict[str, list[Path]], shape: Sequence[int], skip_unreadable: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images [B, h, w, c] and labels [B], shot by shot as the model was trained."""
    columns = []
    for label, (name, files) in enumerate(support.items()):
        images = [image for _, image in read_images(files, shape, skip_unreadable)]
        if not images:
            raise ClientError(f"None of the images of class {name!r} can be read.")
        columns.append([(image, label) for image in images])
    shots = itertools.chain.from_iterable(itertools.zip_longest(*columns))
    pairs = [pair for pair in shots if pair is not None]
    return np.stack([image for image, _ in pairs]), np.array(
        [label for _, label in pairs], np.int32
    )


def read_images(
    paths: Iterable[Path], shape: Sequence[int], skip_unreadable: bool
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields images as the model wants them; leaves unreadable files out if asked to."""
    for path in paths:
        try:
            yield path, read_image(path, shape)
        except _DAMAGED as error:
            text = f"{path} is not a readable image ({error})"
            if not skip_unreadable:
                raise ClientError(f"{text}: take it away, or pass --skip_unreadable.") from error
            print(f"skipped: {text}", file=sys.stderr)


def read_image(path: Path, shape: Sequence[int]) -> np.ndarray:
    """Returns pixels 0 ... 255, float32 [h, w, c].

    Upright by its EXIF entry, on white where it is transparent, gray or color as the model
    was trained, and squeezed to size by the filter that prepared the training images.
    """
    height, width, channels = shape
    with Image.open(path) as opened:
        opened.load()
        image = ImageOps.exif_transpose(opened)
    if image.mode == "F":
        raise ValueError("pixels are floating point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray(np.clip(np.asarray(image) / 257.0, 0, 255).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32).reshape(height, width, channels)


def load_signatures(directory: Path) -> Any:
    """Returns the functions of an exported model by name."""
    tensorflow = _import_tensorflow()
    try:
        signatures = tensorflow.saved_model.load(str(directory)).signatures
        return {name: signatures[name] for name in ("adapt", "predict")}
    except Exception as error:  # whatever a file with a piece missing leads to
        raise ClientError(
            f"The model in {directory} cannot be loaded; is the copy complete? "
            f"({type(error).__name__}: {str(error).strip()[:300]})"
        ) from error


def adapt(signatures: Any, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Returns what the model learned from images [B, h, w, c] and labels [B], for `predict`."""
    adapted = signatures["adapt"](support_images=images, support_labels=labels)
    return {name: value for name, value in adapted.items() if name != "support_losses"}


def classify(
    signatures: Any, adapted: dict[str, Any], images: Iterator, num_classes: int
) -> tuple[list[Path], np.ndarray]:
    """Returns files and their probabilities [files, classes]; a few at a time are in memory."""
    files: list[Path] = []
    rows: list[np.ndarray] = []
    while chunk := list(itertools.islice(images, _QUERIES_AT_A_TIME)):
        files.extend(file for file, _ in chunk)
        pixels = np.stack([image for _, image in chunk])
        rows.extend(signatures["predict"](query_images=pixels, **adapted)["probabilities"].numpy())
    if not files:
        raise ClientError("None of the images to classify can be read.")
    if not np.all(np.isfinite(rows)):
        raise ClientError("The model's answer is not a number: look at the support images.")
    # In float64 nothing that is left of a class vanishes.
    present = np.maximum(np.asarray(rows, np.float64)[:, :num_classes], np.finfo(np.float64).tiny)
    return files, present / present.sum(axis=1, keepdims=True)


def print_table(table: Sequence[tuple], num_rows: int) -> None:
    """Prints file, predicted class and its probability of the first rows."""
    lines = [("file", "predicted", "probability")]
    lines += [(file, name, f"{max(row):.2%}") for file, name, *row in table[:num_rows]]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    for file, name, probability in lines:
        print(f"{file:<{widths[0]}}  {name:<{widths[1]}}  {probability:>11}")
    if len(table) > num_rows:
        print(f"... and {len(table) - num_rows} more")


def write_csv(path: Path, names: Sequence[str], table: Sequence[tuple]) -> None:
    """Writes file, predicted class, its probability, and the probability of every class."""
    try:
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as opened:
            writer = csv.writer(opened)
            writer.writerow(["file", "predicted", "probability", *names])
            for file, name, *row in table:
                writer.writerow([file, name, *(f"{value:.8g}" for value in (max(row), *row))])
    except OSError as error:
        raise ClientError(f"--csv {path} cannot be written ({error}).") from error


def _entries(root: Path) -> tuple[list[Path], list[Path]]:
    """Returns the folders and the files in a folder, sorted, without hidden ones."""
    if not root.is_dir():
        raise ClientError(f"{root} is not a folder.")
    visible = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    return [p for p in visible if p.is_dir()], [p for p in visible if not p.is_dir()]


def _import_tensorflow() -> Any:
    """Returns TensorFlow, imported without what its C++ has to say about the machine."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # the kernels that the model was trained on
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow
    except ImportError as error:
        raise ClientError(f"{error}: pip install tensorflow numpy pillow") from error
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
    return tensorflow


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the exported model")
    parser.add_argument("--support", type=Path, required=True, help="one folder of images a class")
    parser.add_argument("--query", type=Path, required=True, help="images, or one folder a class")
    parser.add_argument("--csv", type=Path, help="also write all probabilities to this file")
    parser.add_argument("--skip_unreadable", action="store_true", help="leave out what is no image")
    return parser


if __name__ == "__main__":
    sys.exit(main())
