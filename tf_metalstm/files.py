"""Writes files completely or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tf_metalstm.failures import not_written


def printable(name: object) -> str:
    """Returns the name of a file in one line, with codes for characters that cannot be printed."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(name))


def print_any_name() -> None:
    """Lets `print` show names of files that are not text, by their codes."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def check_is_text(path: str | Path, name: str) -> None:
    """Checks that TensorFlow accepts a path. In Linux a path may have any bytes.

    Args:
        path: path of a folder to write to.
        name: name of the option, for the error.

    Raises:
        ValueError: the path is not text.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}={printable(path)} is not UTF-8 text, which TensorFlow needs for its files: "
            "choose a folder with another name."
        ) from error


def given_path(path: str | os.PathLike[str], option: str) -> Path:
    """Returns the file or folder that a user typed, with `~` replaced by the home folder.

    Args:
        path: the path as it was typed.
        option: name of the option, for the error.

    Raises:
        ValueError: the path begins with `~` and the name of an unknown user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{option}={os.fspath(path)}: there is no home folder of that name ({error}): use the "
            "whole path, or add ./ before a name that begins with ~"
        ) from error


def result_name(text: str) -> str:
    """Returns the name, without ending, of the file of a result that a text describes.

    Disks take names of up to 255 bytes, so a hash replaces the end of a long text.

    >>> result_name("test_5way 1shot_data/a")
    'test_5way1shot_dataa'
    """
    name = re.sub(r"[^\w.=+,@]", "", text)
    encoded = name.encode()
    if len(encoded) <= 200:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[:180].decode(errors='ignore')}_{digest}"


def write_atomically(path: str | Path, text: str) -> None:
    """Writes a text file, so that readers always see the old contents or the new, never a part.

    Args:
        path: path of the file; its folder is created if it does not exist.
        text: the contents of the file.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    with whole_file(path) as partial:
        # The text may have file names that are not UTF-8. They are written as the bytes on disk.
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path to write to; at the end of the context it is renamed to `path`.

    Args:
        path: path of the file; its folder is created if it does not exist.

    Raises:
        OSError: the file cannot be written; the error names it.
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
        with contextlib.suppress(OSError):  # the first error is the one to report
            partial.unlink(missing_ok=True)


def write_new_files(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, all of them or none. Existing files are not changed.

    Args:
        folder: the folder; is created if it does not exist.
        files: path in the folder -> contents.

    Raises:
        OSError: a file cannot be written; the error names it.
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
    """Creates a folder and its parents; returns the new folders, parents first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for parent in reversed(missing):
        try:
            parent.mkdir()
        except OSError as error:
            raise not_written(parent, error) from error
    return missing[::-1]
