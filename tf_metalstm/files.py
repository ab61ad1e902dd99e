"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tf_metalstm.failures import not_written


def printable(name: object) -> str:
    """Returns the name of a file in one line, with codes for what is no text."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(name))


def check_is_text(path: str | Path, name: str) -> None:
    """Checks that TensorFlow takes a path, which Linux allows to be any bytes.

    Args:
        path: of a folder to write to.
        name: of the option.

    Raises:
        ValueError: it is no text.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}={printable(path)} is no text in UTF-8, which TensorFlow needs for its files: "
            "give a folder of another name."
        ) from error


def write_atomically(path: str | Path, text: str) -> None:
    """Writes a text file so that whoever looks finds the old contents or the new, never a part.

    Args:
        path: of the file; its folder is made where it is not there.
        text: all that the file will hold.

    Raises:
        OSError: it cannot be written; the error names it.
    """
    with whole_file(path) as partial:
        # Names of files in it may be no text: they become the bytes that they are on the disk.
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yields a path beside a file to write to; what is there at the end becomes the file.

    Args:
        path: of the file; its folder is made where it is not there.

    Raises:
        OSError: it cannot be written; the error names it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # said already
            partial.unlink(missing_ok=True)


def write_new_files(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, all of them or none.

    Args:
        folder: made where it is not there.
        files: contents by path in the folder; those that are there already stay.

    Raises:
        OSError: one cannot be written; the error names it.
    """
    created: list[Path] = []
    try:
        for name, contents in files.items():
            path = Path(folder, name)
            if path.exists():
                continue
            created += _make_folders(path.parent)
            created.append(path)
            try:
                path.write_bytes(contents)
            except OSError as error:
                raise not_written(path, error) from error
    except BaseException:  # Ctrl-C too
        for path in reversed(created):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise


def _make_folders(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns the new ones, the outer ones first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        try:
            one.mkdir()
        except OSError as error:
            raise not_written(one, error) from error
    return missing[::-1]
