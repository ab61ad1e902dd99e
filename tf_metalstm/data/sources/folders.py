"""Lists the files in folders of images. It follows links, and leaves out files of other programs.

All sources use this module, so the data, their fingerprint and their description always
have the same files.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from tf_metalstm.files import printable

# Files and folders of macOS, Windows, network drives and file managers, in lower case. Names that
# begin with a dot are clutter too.
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

CLUTTER = "files of operating systems and other programs"
LINKS_BACK = "links to a folder that they are in"
NO_FILES = "broken links, or not ordinary files"

# Number of names in the message for each reason.
_EXAMPLES = 3


class LeftOut:
    """The files that were left out, by reason.

    Args:
        root: paths in messages are relative to this folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._by_reason: dict[str, list[str]] = {}

    def add(self, reason: str, path: PurePath | str) -> None:
        """Adds a file or folder that is left out."""
        if self._root is not None and PurePath(path).is_relative_to(self._root):
            path = PurePath(path).relative_to(self._root)
        self._by_reason.setdefault(reason, []).append(printable(path))

    def lines(self) -> list[str]:
        """Returns a line for each reason, with the number of files and the first names."""
        messages = []
        for reason, paths in sorted(self._by_reason.items()):
            names = sorted(paths)[:_EXAMPLES]
            more = ", ..." if len(paths) > len(names) else ""
            messages.append(f"{len(paths)} left out, {reason}: {', '.join(names)}{more}")
        return messages


def is_clutter(path: PurePath) -> bool:
    """Returns whether a path is a file of an operating system or another program."""
    return any(map(_is_clutter_name, path.parts))


def files_below(folder: Path, left_out: LeftOut | None = None) -> Iterator[Path]:
    """Yields the files in a folder and its subfolders, in the order of their names.

    Links to files and folders are followed. A link to a folder that contains the link, directly or
    through other links, is left out, because it would never end.

    Args:
        folder: the folder; its own name may be anything.
        left_out: collects the files that are left out.
    """
    yield from _below(folder, (), left_out if left_out is not None else LeftOut())


def _is_clutter_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _below(folder: Path, came_from: tuple[Path, ...], left_out: LeftOut) -> Iterator[Path]:
    """Yields the files in a folder.

    Args:
        folder: the folder.
        came_from: the real folders that have the links on the way to this folder.
        left_out: collects the files that are left out.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if _is_clutter_name(entry.name):
            left_out.add(CLUTTER, path)
        elif os.path.isfile(entry):  # entry.is_file() would raise for a ring of links
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
