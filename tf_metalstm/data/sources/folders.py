"""Folders of images: links are followed, loops end, clutter of other programs is left out.

One reader for all that is read from folders, so that a file is in the data, in their
fingerprint and in their description, or in none of them.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from tf_metalstm.files import printable

# Made by macOS, Windows, network drives, Jupyter and file managers; also all that begins with a
# dot. In lower case.
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

CLUTTER = "of operating systems and other programs"
LINKS_BACK = "links to a folder that they are in"
NO_FILES = "links to nothing, or no ordinary files"

# So many names of each reason are said.
_EXAMPLES = 3


class LeftOut:
    """What was not taken, by reason, to be said once.

    Args:
        root: paths are said from here on.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._found: dict[str, list[str]] = {}

    def add(self, reason: str, path: PurePath | str) -> None:
        """Notes a file or folder that is left out."""
        if self._root is not None and PurePath(path).is_relative_to(self._root):
            path = PurePath(path).relative_to(self._root)
        self._found.setdefault(reason, []).append(printable(path))

    def lines(self) -> list[str]:
        """Returns a line for each reason: how many there are and the names of the first."""
        said = []
        for reason, paths in sorted(self._found.items()):
            names = sorted(paths)[:_EXAMPLES]
            more = ", ..." if len(paths) > len(names) else ""
            said.append(f"{len(paths)} left out, {reason}: {', '.join(names)}{more}")
        return said


def is_clutter(path: PurePath) -> bool:
    """Whether an operating system or another program left it behind; it is no part of the data."""
    return any(map(_is_clutter_name, path.parts))


def files_below(folder: Path, left_out: LeftOut | None = None) -> Iterator[Path]:
    """The files in a folder and its folders, in the order of their names.

    Linked files and folders are taken like others. A link to a folder that it lies in, directly
    or by way of other links, would never end: it is left out.

    Args:
        folder: where to begin. Its own name may be anything.
        left_out: notes what is left out.
    """
    yield from _below(folder, (), left_out if left_out is not None else LeftOut())


def given_folder(path: str | os.PathLike[str], option: str) -> Path:
    """The folder that a user named: with `~`, with spaces, a trailing slash, relative, a link.

    Args:
        path: as it was typed.
        option: name of the option, for the error.

    Raises:
        ValueError: it begins with `~` and the name of no user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{option}={os.fspath(path)}: there is no home folder of that name ({error}): give the "
            "whole path, or ./ before a name that begins with ~"
        ) from error


def _is_clutter_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _below(folder: Path, came_from: tuple[Path, ...], left_out: LeftOut) -> Iterator[Path]:
    """The files below a folder; `came_from` has the real folders whose links led here."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if _is_clutter_name(entry.name):
            left_out.add(CLUTTER, path)
        elif os.path.isfile(entry):  # of links that go in a ring, scandir's own raises
            yield path
        elif not os.path.isdir(entry):
            left_out.add(NO_FILES, path)
        elif not entry.is_symlink():
            yield from _below(path, came_from, left_out)
        else:
            chain = (*came_from, folder.resolve())
            if any(real.is_relative_to(path.resolve()) for real in chain):
                left_out.add(LINKS_BACK, path)
            else:
                yield from _below(path, chain, left_out)
