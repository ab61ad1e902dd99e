"""Hashes of the contents of files, computed once for each state of a file.

It would take too long to read gigabytes at every start. So the hash of a file is kept with the
prepared data, together with the state of the file: size, times of change, inode. If the state is
the same, the contents are the same. The change time of the inode changes even if somebody sets the
modification time back.
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

# If a file changed less than this time (in nanoseconds) before it was read, it may change again
# within one tick of the clock of the file system. Its state would then look the same.
_TOO_FRESH = 2 * 10**9


class KeptDigests:
    """The hashes of the files in one folder, saved in a file in another folder.

    Args:
        kept_in: folder of the saved hashes.
        folder: folder of the files.
    """

    def __init__(self, kept_in: Path, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        self._path = kept_in / f"{name}.json"
        self._folder = folder

    def of(self, files: Iterable[Path]) -> dict[Path, str]:
        """Returns the hash of each file, hexadecimal; reads only the files that changed.

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
            return {}  # missing or damaged: all files are read again
        return kept if isinstance(kept, dict) else {}

    def _write(self, digests: dict[str, str]) -> None:
        # If this fails, the next start reads all files again, which is only slower.
        with contextlib.suppress(OSError):
            write_atomically(
                self._path, json.dumps({"folder": str(self._folder), "files": digests})
            )


def file_digest(file: Path) -> str:
    """Returns the SHA-256 of the contents of a file, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
