"""Reads lists with the class of each image, in CSV or JSON lines.

    file,label,split                              {"file": "a/1.jpg", "label": "cat"}
    a/1.jpg,cat,train                             {"file": "b/2.jpg", "label": "dog"}

Some other names of the columns are allowed. The column split may be missing. Paths are relative to
the folder of the data.
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
    """The class and the split of an image in a list; the split is "" if the list has none."""

    label: str
    split: str


def read_list(path: Path, source_name: str) -> dict[PurePosixPath, ListedImage]:
    """Returns the class and the split of each image, by its path.

    Args:
        path: the list; `.jsonl`, `.ndjson` or `.json` for JSON lines, else CSV.
        source_name: name of the source, for errors.

    Raises:
        InconsistentDataError: the file is not such a list, a column or a value is missing, or two
            lines contradict each other.
    """
    is_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    rows = _json_rows(path, source_name) if is_json else _csv_rows(path, source_name)
    listed: dict[PurePosixPath, ListedImage] = {}
    for number, row in rows:
        file, entry = _entry(row, f"{source_name}: line {number} of {path}")
        before = listed.setdefault(file, entry)
        if before != entry:
            now, earlier = ("/".join(filter(None, each)) for each in (entry, before))
            raise InconsistentDataError(
                f"{source_name}: line {number} of {path} has {file} as {now}, but it was {earlier} "
                "before: keep one of the lines"
            )
    splits = {bool(entry.split) for entry in listed.values()}
    if not listed or len(splits) > 1:
        problem = "images without a split beside others with one" if listed else "no image"
        raise InconsistentDataError(f"{source_name}: {path} has {problem}: correct the list")
    return listed


def text_of(path: Path, source_name: str) -> str:
    """Returns the text of a list, without the byte order mark of Excel.

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
        for column in ("file", "label"):
            if not set(_COLUMNS[column]) & set(names):
                raise InconsistentDataError(
                    f"{source_name}: {path} needs a column called {_one_of(column)}, and commas "
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
                f"{source_name}: line {number} of {path} is not a JSON object, as "
                f'{{"file": "a/1.jpg", "label": "cat"}}: {line[:80]!r}'
            )
        yield number, {str(name).lower(): value for name, value in row.items()}


def _entry(row: dict[str, Any], where: str) -> tuple[PurePosixPath, ListedImage]:
    values = {}
    for column, names in _COLUMNS.items():
        value = next((row[name] for name in names if row.get(name) not in (None, "")), "")
        values[column] = str(value).strip()
        if column != "split" and not values[column]:
            raise InconsistentDataError(
                f"{where} has no value of {_one_of(column)}: correct the list"
            )
    split = values["split"]
    if split and split.lower() not in SPLIT_FOLDERS:
        raise InconsistentDataError(
            f"{where} has the split {split!r}: use {', '.join(SPLITS)}, or leave the column out"
        )
    file = PurePosixPath(values["file"].replace("\\", "/"))
    return file, ListedImage(values["label"], SPLIT_FOLDERS.get(split.lower(), ""))


def _one_of(column: str) -> str:
    *others, last = _COLUMNS[column]
    return f"{', '.join(others)} or {last}"
