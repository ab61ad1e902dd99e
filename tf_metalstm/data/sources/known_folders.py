"""Saves from which folder of raw files prepared data were made.

These facts are saved with the prepared data, so that the data can be used when the raw files are
gone, and so that people know what the folder has. Each fact is in a separate file, so two
processes never write different contents to the same file.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import Path

from tf_metalstm.files import write_atomically


@dataclasses.dataclass(frozen=True)
class KnownFolder:
    """One folder of raw files that was prepared once.

    Attributes:
        source: name of the source.
        options: the options that the prepared data depend on, as text.
        given: the folder as the user typed it.
        absolute: the absolute path, with links.
        resolved: the absolute path, without links.
        fingerprint: fingerprint of the raw files, as in the name of the prepared data.
        date: date of the preparation, in ISO 8601.
    """

    source: str
    options: str
    given: str
    absolute: str
    resolved: str
    fingerprint: str
    date: str


class KnownFolders:
    """The known folders of one source with the same options.

    Args:
        kept_in: folder of the files with these facts.
        source: name of the source.
        options: the options, as in `KnownFolder`.
    """

    def __init__(self, kept_in: Path, source: str, options: str) -> None:
        self._kept_in, self._source, self._options = kept_in, source, options

    def write(self, folder: Path, fingerprint: str, date: str) -> bool:
        """Saves the fingerprint and date of a folder; returns False if they were known already."""
        places = str(folder), os.path.abspath(folder), str(folder.resolve())
        known = KnownFolder(self._source, self._options, *places, fingerprint, date)
        name = hashlib.sha256(repr((self._source, self._options, *places)).encode()).hexdigest()
        path = self._kept_in / f"{self._source}-{name[:16]}.json"
        before = _read(path)
        if before is not None and before.fingerprint == fingerprint:
            return False
        # If this fails, the data cannot be used without the raw files later, which is no error.
        with contextlib.suppress(OSError):
            write_atomically(path, json.dumps(dataclasses.asdict(known), indent=1) + "\n")
        return True

    def all(self) -> list[KnownFolder]:
        """Returns all known folders, the latest first."""
        notes = [_read(path) for path in self._kept_in.glob(f"{self._source}-*.json")]
        mine = [k for k in notes if k and (k.source, k.options) == (self._source, self._options)]
        return sorted(mine, key=lambda known: known.date, reverse=True)

    def find(self, folder: Path) -> KnownFolder | None:
        """Returns the facts about a folder that does not exist any more, or None.

        A relative path matches also if it was typed in another folder, but only if all folders of
        that name had the same data.
        """
        known = self.all()
        absolute, resolved = os.path.abspath(folder), str(folder.resolve())
        for each in known:
            if {absolute, resolved} & {each.absolute, each.resolved}:
                return each
        named_alike = [] if folder.is_absolute() else [k for k in known if k.given == str(folder)]
        if len({each.fingerprint for each in named_alike}) == 1:
            return named_alike[0]
        return None


def _read(path: Path) -> KnownFolder | None:
    try:
        return KnownFolder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None  # the file is missing or damaged
