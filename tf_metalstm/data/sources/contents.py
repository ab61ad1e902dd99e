"""What is in files: a hash that is computed once for each state of a file.

To read gigabytes at every start, only to find that nothing changed, would cost too much. So the
hash of a file is kept beside the prepared data, with the state in which the file was read: size,
times of change, inode. While these are the same, so are the contents; the time of the last change
of the inode moves even where somebody sets the other back.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tf_metalstm.files import write_atomically

# A file that changed so shortly before it was read, in nanoseconds, may change again within one
# tick of the clock of its file system, and look the same.
_TOO_FRESH = 2 * 10**9


class KeptDigests:
    """The hashes of the files of one folder, kept in a file elsewhere.

    Args:
        kept_in: folder of such files.
        folder: whose files are hashed.
    """

    def __init__(self, kept_in: Path, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        self._path = kept_in / f"{name}.json"
        self._folder = folder

    def of(self, files: Iterable[Path]) -> dict[Path, str]:
        """Returns the hash of each file, hexadecimal; reads those that changed.

        Raises:
            OSError: a file cannot be read.
        """
        before = self._read()
        now = time.time_ns()
        states = {file: file.stat() for file in files}
        keys = {file: self._key(file, status) for file, status in states.items()}
        changed = [file for file, key in keys.items() if key not in before]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            computed = dict(zip(changed, pool.map(file_digest, changed), strict=True))
        digests = {file: computed.get(file) or before[key] for file, key in keys.items()}
        kept = {
            keys[file]: digests[file]
            for file, status in states.items()
            if max(status.st_mtime_ns, status.st_ctime_ns) < now - _TOO_FRESH
        }
        if kept != before:
            self._write(kept)
        return digests

    def _key(self, file: Path, status: os.stat_result) -> str:
        name = str(file).removeprefix(str(self._folder)).lstrip("/")
        state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        return f"{name}|{'|'.join(map(str, state))}"

    def _read(self) -> dict[str, str]:
        try:
            kept = json.loads(self._path.read_text())["files"]
        except (OSError, ValueError, TypeError, KeyError):
            return {}  # not there, or damaged: all is read again
        return kept if isinstance(kept, dict) else {}

    def _write(self, digests: dict[str, str]) -> None:
        # Where nothing can be written, all is read again: slower, not wrong.
        with contextlib.suppress(OSError):
            write_atomically(
                self._path, json.dumps({"folder": str(self._folder), "files": digests})
            )


def file_digest(file: Path) -> str:
    """Returns the SHA-256 of the contents of a file, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
