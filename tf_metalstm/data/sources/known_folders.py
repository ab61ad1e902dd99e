"""Which prepared data came from which folder of raw files.

Written down beside the prepared data, so that these can be used when the raw files are gone, and
so that a reader of the folder knows what is in it. Each fact is a file of its own: two processes
never write the same one differently.
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
        options: what else the prepared data depend on, as text.
        given: the folder as the user named it.
        absolute: the same from the root on, links as they are.
        resolved: the same without links.
        fingerprint: of the raw files, as in the name of the prepared data.
        date: of the preparation, as ISO 8601 has it.
    """

    source: str
    options: str
    given: str
    absolute: str
    resolved: str
    fingerprint: str
    date: str


class KnownFolders:
    """All that is known of one source under the same options.

    Args:
        kept_in: folder of the files with these facts.
        source: name of the source.
        options: as in `KnownFolder`.
    """

    def __init__(self, kept_in: Path, source: str, options: str) -> None:
        self._kept_in, self._source, self._options = kept_in, source, options

    def write(self, folder: Path, fingerprint: str, date: str) -> bool:
        """Writes down what was prepared from a folder; False where that was known."""
        places = str(folder), os.path.abspath(folder), str(folder.resolve())
        known = KnownFolder(self._source, self._options, *places, fingerprint, date)
        name = hashlib.sha256(repr((self._source, self._options, *places)).encode()).hexdigest()
        path = self._kept_in / f"{self._source}-{name[:16]}.json"
        before = _read(path)
        if before is not None and before.fingerprint == fingerprint:
            return False
        # Where nothing can be written, the raw files will be asked for: a nuisance, not wrong.
        with contextlib.suppress(OSError):
            write_atomically(path, json.dumps(dataclasses.asdict(known), indent=1) + "\n")
        return True

    def all(self) -> list[KnownFolder]:
        """Returns all facts, the latest first."""
        notes = [_read(path) for path in self._kept_in.glob(f"{self._source}-*.json")]
        mine = [k for k in notes if k and (k.source, k.options) == (self._source, self._options)]
        return sorted(mine, key=lambda known: known.date, reverse=True)

    def find(self, folder: Path) -> KnownFolder | None:
        """Returns what was prepared from a folder that is not there any more.

        A relative path that was typed in another folder is recognized, unless what was prepared
        from folders of that name is not all the same.
        """
        known = self.all()
        place, real = os.path.abspath(folder), str(folder.resolve())
        for each in known:
            if place in (each.absolute, each.resolved) or real in (each.absolute, each.resolved):
                return each
        named_alike = [] if folder.is_absolute() else [k for k in known if k.given == str(folder)]
        if len({each.fingerprint for each in named_alike}) == 1:
            return named_alike[0]
        return None


def _read(path: Path) -> KnownFolder | None:
    try:
        return KnownFolder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None  # not there, or of no use
