"""Folders of images as they are on people's disks, as all clients read them. Needs Python alone.

What an operating system or another program keeps in a folder is left out, and said on stderr; so
is a link that leads back to a folder above it. Linked folders and files are taken.
"""

from __future__ import annotations

import glob
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

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

MAX_STEPS = 1000
"""The most updates that an exported model makes."""


class ClientError(Exception):
    """Something that the user has to put right."""


def run_client(main: Callable[[], int | None]) -> NoReturn:
    """Runs a client and exits: with its exit code, or with 130 after Ctrl-C and a sentence."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one need not wait
        print("error: stopped by Ctrl-C; nothing half written stays.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def print_any_name() -> None:
    """Lets names of files that are no text be printed, by their codes."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def num_steps_of(text: str) -> int:
    """Returns the number of updates that --num_steps says.

    Raises:
        ClientError: it is no number, or out of range.
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
    """Returns a path as it was typed; `~` is the user's own folder.

    Raises:
        ClientError: it is empty, or begins with `~` and the name of no user.
    """
    if not text:  # an unset variable of a shell; Path takes it for the present folder
        raise ClientError("a path is needed, got nothing.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ClientError(
            f"{text}: there is no home folder of that name: give the whole path, or ./ before a "
            "name that begins with ~."
        ) from error


def class_files(root: Path) -> dict[str, list[Path]]:
    """Returns the files of every class: all that is in or below its folder, sorted."""
    reader = _Reader()
    classes = reader.classes(root)
    reader.say_what_was_left()
    return classes


def query_files(
    patterns: Sequence[str], names: Sequence[str]
) -> tuple[list[tuple[str, Path]], dict[Path, str]]:
    """Finds the images to classify.

    Args:
        patterns: files, folders, or patterns as `photos/*.jpg`.
        names: of the classes.

    Returns:
        What to call each file, and the file; and for those whose class their folder tells, that.
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
            elif path.exists() and not path.is_file():  # a pipe would be waited for
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


def warn(remarks: Sequence[str]) -> list[str]:
    """Writes to stderr what is wrong with pictures; returns it."""
    for remark in remarks:
        print(f"warning: {remark}", file=sys.stderr)
    return list(remarks)


def sentence(error: str) -> str:
    """Returns what a model has to say of a request, in a text that TensorFlow made of it."""
    found = re.search(r"assertion failed: \[(.*?)\](?=\s|$)", error, re.DOTALL)
    return found[1] if found else error


def bad_image(error: str, part: str) -> tuple[int, str] | None:
    """Returns the place and the reason where a model says that it cannot read an image.

    Args:
        error: a text that TensorFlow made of what it says.
        part: "support" or "query".
    """
    found = re.match(rf"{part}_images\[(\d+)\]: (.*)", sentence(error), re.DOTALL)
    return (int(found[1]), found[2]) if found else None


def check_number(support: Path, found: int, num_way: int | None) -> None:
    """Raises an error if there are more classes than the model tells apart; None for any number."""
    if num_way is not None and found > num_way:
        raise ClientError(
            f"{support} has {found} class folders, but the model tells at most {num_way} classes "
            "apart: take away some, or take a model that compares features, which has no limit."
        )


def unreadable(path: Path, reason: str) -> str:
    """Returns a sentence, without its full stop, on a file that is no readable image."""
    return f"{path} is not a readable image ({reason})"


def is_archive(path: Path) -> bool:
    """Whether a name is that of an archive, as .zip or .tar.gz."""
    return path.suffix.lower() in _ARCHIVES


def is_clutter(name: str) -> bool:
    """Whether a name is that of a hidden file or folder, or of one of the system."""
    return name.startswith(".") or name.lower() in _CLUTTER


class _Reader:
    """Reads folders, and remembers what it left out."""

    def __init__(self) -> None:
        self._clutter: list[Path] = []
        self._left: list[tuple[Path, str]] = []

    def classes(self, root: Path) -> dict[str, list[Path]]:
        """Returns the files of every class folder."""
        return self.classes_in(root, *self.entries(root))

    def classes_in(
        self, root: Path, folders: Sequence[Path], files: Sequence[Path]
    ) -> dict[str, list[Path]]:
        """Returns the files of every class folder in a folder that holds these."""
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
        for name, found in classes.items():
            if not found:
                raise ClientError(f"The class folder {root / name} holds no image.")
        return classes

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Returns the folders and the files in a folder, sorted."""
        if not folder.is_dir():
            what = "is an archive: unpack it" if is_archive(folder) else "is not a folder"
            raise ClientError(f"{folder} {what}.")
        folders, files = [], []
        try:
            found = sorted(folder.iterdir())
        except OSError as error:
            raise ClientError(f"{folder} cannot be read ({error.strerror}).") from error
        here = folder.resolve()
        for path in found:
            if is_clutter(path.name):
                self._clutter.append(path)
            elif path.is_dir() and path.resolve() in (here, *here.parents):
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
            folders, found = self.entries(one)
            files.extend(found)
            waiting.extend(reversed(folders))
        return sorted(files)

    def say_what_was_left(self) -> None:
        """Writes to stderr what was not taken."""
        if self._clutter:
            number, first = len(self._clutter), self._clutter[0]
            more = f" and {number - 1} more" if number > 1 else ""
            print(f"left out: {first}{more} (hidden, or of the system)", file=sys.stderr)
        for path, reason in self._left:
            print(f"left out: {path} ({reason})", file=sys.stderr)


def _in_folder(
    reader: _Reader, root: Path, names: Sequence[str]
) -> tuple[list[Path], dict[Path, str]]:
    """Returns the files of a folder of queries, and their classes where folders tell them."""
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
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    found = [path for path in found if not is_clutter(os.path.basename(path))]
    if not found:
        raise ClientError(f"{pattern}: there is no such file or folder.")
    return [path for path in found if not path.is_dir()] or found
