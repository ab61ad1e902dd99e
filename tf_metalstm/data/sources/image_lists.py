"""Lists that say which image is of which class: CSV, or JSON lines.

    file,label,split                              {"file": "a/1.jpg", "label": "cat"}
    a/1.jpg,cat,train                             {"file": "b/2.jpg", "label": "dog"}

The columns may have other usual names; that of the split may be missing. Paths are relative to the
folder of the data.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tf_metalstm.data.sources.base import SPLITS, InconsistentDataError
from tf_metalstm.data.sources.class_folders import SPLIT_FOLDERS

_COLUMNS = {
    "file": ("file", "path", "filename", "file_name", "filepath", "image", "image_path"),
    "label": ("label", "class", "class_name", "category", "species"),
    "split": ("split", "set", "subset"),
}


class ListedImage(NamedTuple):
    """What a list says of an image: its class, and its split; "" where it says none."""

    label: str
    split: str


def read_list(path: Path, source_name: str) -> dict[PurePosixPath, ListedImage]:
    """Reads a list.

    Args:
        path: a file of the above; `.jsonl`, `.ndjson` or `.json` for JSON lines, else CSV.
        source_name: names the source in errors.

    Returns:
        What is said of each image, by its path.

    Raises:
        InconsistentDataError: it is no such list, lacks a column or a value, or contradicts
            itself.
    """
    is_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    rows = _json_rows(path, source_name) if is_json else _csv_rows(path, source_name)
    listed: dict[PurePosixPath, ListedImage] = {}
    for number, row in rows:
        file, found = _entry(row, f"{source_name}: line {number} of {path}")
        before = listed.setdefault(file, found)
        if before != found:
            one, other = ("/".join(filter(None, each)) for each in (found, before))
            raise InconsistentDataError(
                f"{source_name}: line {number} of {path} has {file} as {one}, but it was {other} "
                "before: keep one of the lines"
            )
    splits = {bool(found.split) for found in listed.values()}
    if not listed or len(splits) > 1:
        what = "images without a split beside others with one" if listed else "no image"
        raise InconsistentDataError(f"{source_name}: {path} has {what}: mend the list")
    return listed


def text_of(path: Path, source_name: str) -> str:
    """The text of a list, without the mark that Excel puts before it.

    Raises:
        InconsistentDataError: the file is not UTF-8 text.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InconsistentDataError(
            f"{source_name}: {path} is not UTF-8 text: save it as CSV (comma, UTF-8)"
        ) from error


def _csv_rows(path: Path, source_name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with io.StringIO(text_of(path, source_name), newline="") as opened:
        reader = csv.DictReader(opened)
        names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        for what in ("file", "label"):
            if not set(_COLUMNS[what]) & set(names):
                raise InconsistentDataError(
                    f"{source_name}: {path} needs a column called {_one_of(what)}, and commas "
                    f"between the columns; its first line is {','.join(names)[:80]!r}"
                )
        for row in reader:
            yield reader.line_num, row


def _json_rows(path: Path, source_name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text_of(path, source_name).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            row = error
        if not isinstance(row, dict):
            raise InconsistentDataError(
                f"{source_name}: line {number} of {path} is no JSON object, as "
                f'{{"file": "a/1.jpg", "label": "cat"}}: {line[:80]!r}'
            )
        yield number, {str(name).lower(): value for name, value in row.items()}


def _entry(row: dict[str, Any], where: str) -> tuple[PurePosixPath, ListedImage]:
    values = {}
    for what, names in _COLUMNS.items():
        found = next((row[name] for name in names if row.get(name) not in (None, "")), "")
        values[what] = str(found).strip()
        if what != "split" and not values[what]:
            raise InconsistentDataError(f"{where} lacks a value of {_one_of(what)}: mend the list")
    split = values["split"]
    if split and split.lower() not in SPLIT_FOLDERS:
        raise InconsistentDataError(
            f"{where} has the split {split!r}: use {', '.join(SPLITS)}, or leave the column out"
        )
    file = PurePosixPath(values["file"].replace("\\", "/"))
    return file, ListedImage(values["label"], SPLIT_FOLDERS.get(split.lower(), ""))


def _one_of(what: str) -> str:
    *others, last = _COLUMNS[what]
    return f"{', '.join(others)} or {last}"
