"""Reads folders of images, in the same way for all clients. Needs only Python.

Files of the operating system and of other programs are left out, and named on stderr. So are links
that lead back to a folder above. Other linked folders and files are read.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

_CLUTTER = {
    "#recycle",
    "$recycle.bin",
    "@eadir",
    "__macosx",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "system volume information",
    "thumbs.db",
}


_ARCHIVES = {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"}

Step = TypeVar("Step")

MAX_STEPS = 1000
"""Largest number of updates of an exported model."""


class ClientError(Exception):
    """An error that the user can correct."""


def run_client(main: Callable[[], int | None]) -> NoReturn:
    """Runs a client and exits with its exit code; after Ctrl-C, with a sentence and 130."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends at once
        print("error: stopped by Ctrl-C; nothing half written stays.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def print_any_name() -> None:
    """Lets names of files that are not text be printed, by their codes."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def num_steps_of(text: str) -> int:
    """Returns the value of --num_steps.

    Raises:
        ClientError: it is not a number, or out of range.
    """
    try:
        num_steps = int(text)
    except ValueError:
        num_steps = -1
    if not 0 <= num_steps <= MAX_STEPS:
        raise ClientError(
            f"--num_steps must be a whole number from 0 to {MAX_STEPS}, got {text or 'nothing'}."
        )
    return num_steps


def user_path(text: str) -> Path:
    """Returns a path; `~` is the home folder of the user.

    Raises:
        ClientError: it is empty, begins with `~` and an unknown user, is too long, or is in a
            folder that the user may not read.
    """
    if not text:  # for example an unset variable; for Path it would be the current folder
        raise ClientError("a path is needed, got nothing.")
    try:
        path = Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # what is to be written
            path.stat()
    except OSError as error:
        raise ClientError(f"{text} cannot be used ({error.strerror}).") from error
    except RuntimeError as error:
        raise ClientError(
            f"{text}: there is no home folder of that name: give the whole path, or ./ before a "
            "name that begins with ~."
        ) from error
    return path


def class_files(root: Path) -> dict[str, list[Path]]:
    """Returns the files of every class, sorted: all files in and below its folder."""
    reader = _Reader()
    classes = reader.classes(root)
    reader.say_what_was_left()
    return classes


def query_files(
    patterns: Sequence[str], names: Sequence[str]
) -> tuple[list[tuple[str, Path]], dict[Path, str]]:
    """Finds the images to classify.

    Args:
        patterns: files, folders, or patterns such as `photos/*.jpg`.
        names: names of the classes.

    Returns:
        The name and path of each file; and the class of each file whose folder is a class.
    """
    reader = _Reader()
    files: list[tuple[str, Path]] = []
    classes: dict[Path, str] = {}
    for pattern in map(_query_path, patterns):
        for path in [Path(pattern)] if Path(pattern).exists() else _matches(pattern):
            if path.is_dir():
                below, labelled = _in_folder(reader, path, names)
                classes.update(labelled)
                files.extend((file.relative_to(path).as_posix(), file) for file in below)
            elif path.exists() and not path.is_file():  # for example a pipe, which would never end
                raise ClientError(f"{path} is neither a file nor a folder.")
            else:
                files.append((path.as_posix(), path))
    reader.say_what_was_left()
    return files, classes


def read(path: Path) -> bytes:
    """Returns the bytes of a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClientError(f"{path} cannot be read ({error.strerror}).") from error


def in_view(steps: Sequence[Step], title: str, unit: str) -> Iterable[Step]:
    """Returns steps with a progress bar, on a terminal and if it takes more than a moment."""
    try:
        import tqdm
    except ImportError:
        return steps
    return tqdm.tqdm(steps, desc=title, unit=unit, delay=1, leave=False, disable=None)


def warn(remarks: Sequence[str]) -> list[str]:
    """Writes warnings about pictures to stderr and returns them."""
    for remark in remarks:
        print(f"warning: {remark}", file=sys.stderr)
    return list(remarks)


def sentence(error: str) -> str:
    """Returns the sentence of a model in an error message of TensorFlow."""
    match = re.search(r"assertion failed: \[(.*?)\](?=\s|$)", error, re.DOTALL)
    return match[1] if match else error


def bad_image(error: str, part: str) -> tuple[int, str] | None:
    """Returns place and reason if an error says that a model cannot read an image, else None.

    Args:
        error: error message of TensorFlow.
        part: "support" or "query".
    """
    match = re.match(rf"{part}_images\[(\d+)\]: (.*)", sentence(error), re.DOTALL)
    return (int(match[1]), match[2]) if match else None


def check_number(support: Path, num_classes: int, num_way: int | None) -> None:
    """Raises an error for more classes than `num_way`; None is any number."""
    if num_way is not None and num_classes > num_way:
        raise ClientError(
            f"{support} has {num_classes} class folders, but the model tells at most {num_way} "
            "classes apart: take away some, or take a model that compares features, which has no "
            "limit."
        )


def unreadable(path: Path, reason: str) -> str:
    """Returns a sentence, without full stop, about a file that is not a readable image."""
    return f"{path} is not a readable image ({reason})"


def is_archive(path: Path) -> bool:
    """Whether a path has the ending of an archive, such as .zip or .tar.gz."""
    return path.suffix.lower() in _ARCHIVES


def is_clutter(name: str) -> bool:
    """Whether a name is that of a hidden file or folder, or of a system file."""
    return name.startswith(".") or name.lower() in _CLUTTER


class _Reader:
    """Reads folders, and collects what is left out."""

    def __init__(self) -> None:
        self._clutter: list[Path] = []
        self._left: list[tuple[Path, str]] = []

    def classes(self, root: Path) -> dict[str, list[Path]]:
        """Returns the files of every class folder."""
        return self.classes_in(root, *self.entries(root))

    def classes_in(
        self, root: Path, folders: Sequence[Path], files: Sequence[Path]
    ) -> dict[str, list[Path]]:
        """Returns the files of every class folder, from the folders and files of the root."""
        if {"support", "query"} <= {folder.name for folder in folders}:
            raise ClientError(
                f"{root} holds the folders support and query, which are no classes: give "
                f"{root / 'support'} as the support set and {root / 'query'} as the images to "
                "classify."
            )
        if not folders:
            raise ClientError(f"{root} has no class folders: expected {root}/<class>/<image>.")
        if files:
            raise ClientError(f"{files[0]} is in no class folder: move it into one, or away.")
        classes = {folder.name: self.below(folder, root) for folder in folders}
        for name, paths in classes.items():
            if not paths:
                raise ClientError(f"The class folder {root / name} holds no image.")
        return classes

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Returns the folders and the files in a folder, sorted."""
        if not folder.is_dir():
            what = "is an archive: unpack it" if is_archive(folder) else "is not a folder"
            raise ClientError(f"{folder} {what}.")
        folders, files = [], []
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise ClientError(f"{folder} cannot be read ({error.strerror}).") from error
        resolved = folder.resolve()
        for path in paths:
            if is_clutter(path.name):
                self._clutter.append(path)
            elif path.is_dir() and path.resolve() in (resolved, *resolved.parents):
                self._left.append((path, "a link to a folder that it is in"))
            elif path.is_dir():
                folders.append(path)
            elif path.is_file():
                files.append(path)
            else:
                self._left.append((path, "a link to nothing, or no file"))
        return folders, files

    def below(self, folder: Path, root: Path) -> list[Path]:
        """Returns all files in a folder and the folders in it, sorted; each folder only once."""
        seen = {root.resolve(), *root.resolve().parents}
        files, waiting = [], [folder]
        while waiting:
            one = waiting.pop()
            if one.resolve() in seen:
                self._left.append((one, "a link to a folder that is read already, or it is in"))
                continue
            seen.add(one.resolve())
            folders, loose = self.entries(one)
            files.extend(loose)
            waiting.extend(reversed(folders))
        return sorted(files)

    def say_what_was_left(self) -> None:
        """Writes to stderr what is left out."""
        if self._clutter:
            number, first = len(self._clutter), self._clutter[0]
            more = f" and {number - 1} more" if number > 1 else ""
            print(f"left out: {first}{more} (hidden, or of the system)", file=sys.stderr)
        for path, reason in self._left:
            print(f"left out: {path} ({reason})", file=sys.stderr)


def _in_folder(
    reader: _Reader, root: Path, names: Sequence[str]
) -> tuple[list[Path], dict[Path, str]]:
    """Returns the files of a folder of queries, and their classes if it has class folders."""
    folders, loose = reader.entries(root)
    if folders and not loose:
        labelled = _labelled(reader, root, folders, names)
        return list(labelled), labelled
    if any(folder.name in names for folder in folders):
        print(
            f"{root} holds files beside its class folders, as {loose[0].name}: all of it counts "
            "as of unknown class.",
            file=sys.stderr,
        )
    files = sorted(loose + [file for folder in folders for file in reader.below(folder, root)])
    if not files:
        raise ClientError(f"{root} holds no image.")
    return files, {}


def _labelled(
    reader: _Reader, root: Path, folders: Sequence[Path], names: Sequence[str]
) -> dict[Path, str]:
    """Returns the files below class folders, and their classes."""
    labelled = {}
    for name, files in reader.classes_in(root, folders, []).items():
        if name not in names:
            raise ClientError(
                f"{root / name} is none of the classes of the support folder ({', '.join(names)}): "
                "rename it, or put images of unknown class into one folder without class folders."
            )
        labelled.update(dict.fromkeys(files, name))
    return labelled


def _query_path(text: str) -> str:
    if not text:
        raise ClientError("a path is needed, got nothing.")
    path = user_path(text)
    if is_archive(path) and path.is_file():
        raise ClientError(f"{path} is an archive: unpack it.")
    return str(path)


def _matches(pattern: str) -> list[Path]:
    paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    paths = [path for path in paths if not is_clutter(os.path.basename(path))]
    if not paths:
        raise ClientError(f"{pattern}: there is no such file or folder.")
    return [path for path in paths if not path.is_dir()] or paths
