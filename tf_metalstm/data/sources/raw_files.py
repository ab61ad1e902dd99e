"""Reading image files where they lie: in folders, zip and tar archives.

Nothing is ever extracted to disk, and nothing is written beside the raw files.
A tar archive is read as a stream, once, from front to back: seeking in a
compressed one would decompress it again and again.
"""

import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tf_metalstm.data.sources.base import CorruptImageError, InconsistentDataError

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES = (".zip", *TAR_SUFFIXES)

# An image of a few-shot data set has kilobytes; a member that claims more than
# this is damaged or hostile, and must not fill the memory.
MAX_IMAGE_BYTES = 64 * 2**20

_DAMAGED_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError)


class RawFile(NamedTuple):
    """One file of a folder or an archive.

    Attributes:
      path: its path inside the folder or archive, the top folder included.
      origin: folder or archive and path, for messages.
      read: returns the bytes; for a tar archive only until the next file is
        asked for. Raises `CorruptImageError`.
    """

    path: PurePosixPath
    origin: str
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive this module reads."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def iterate_files(location: Path) -> Iterator[RawFile]:
    """The files in a folder or an archive, hidden ones left out.

    Args:
      location: a folder, or an archive with one of `ARCHIVE_SUFFIXES`.

    Raises:
      InconsistentDataError: the archive is damaged.
    """
    if location.is_dir():
        files = _files_of_folder(location)
    elif location.name.lower().endswith(".zip"):
        files = _files_of_zip(location)
    else:
        files = _files_of_tar(location)
    try:
        for file in files:
            if not _is_hidden(file.path):
                yield file
    except _DAMAGED_ARCHIVE as error:
        raise InconsistentDataError(
            f"the archive {location} is damaged ({error or type(error).__name__}): "
            "download or copy it again"
        ) from error


def fingerprint(locations: Iterable[Path], *options: object) -> str:
    """Ten hexadecimal digits that change when raw files or options change.

    Names and sizes of the files stand for their contents: reading gigabytes at
    every start only to find that nothing changed would cost too much.

    Args:
      locations: archives and folders.
      *options: whatever else the prepared data depend on; `repr` must be stable.
    """
    digest = hashlib.sha256(repr(options).encode())
    for location in sorted(locations):
        files = sorted(location.rglob("*")) if location.is_dir() else [location]
        for file in files:
            if file.is_file():
                name = file.relative_to(location.parent).as_posix()
                digest.update(f"\n{name}:{file.stat().st_size}".encode())
    return digest.hexdigest()[:10]


def _files_of_folder(folder: Path) -> Iterator[RawFile]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            path = PurePosixPath(file.relative_to(folder.parent).as_posix())
            yield RawFile(path, str(file), _reader(str(file), file.stat().st_size, file.read_bytes))


def _files_of_zip(archive: Path) -> Iterator[RawFile]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            if not member.is_dir():
                origin = f"{member.filename} in {archive}"
                read = _reader(origin, member.file_size, lambda m=member: opened.read(m))
                yield RawFile(PurePosixPath(member.filename), origin, read)


def _files_of_tar(archive: Path) -> Iterator[RawFile]:
    with tarfile.open(archive, "r|*") as opened:
        for member in opened:
            if member.isfile():
                origin = f"{member.name} in {archive}"
                read = _reader(origin, member.size, lambda m=member: opened.extractfile(m).read())
                yield RawFile(PurePosixPath(member.name), origin, read)


def _reader(origin: str, size: int, read: Callable[[], bytes]) -> Callable[[], bytes]:
    """`read` with the two ways in which a single file can be bad made one error."""

    def checked() -> bytes:
        if size > MAX_IMAGE_BYTES:
            raise CorruptImageError(
                f"{origin} has {size} bytes, more than the {MAX_IMAGE_BYTES} an image may have"
            )
        try:
            return read()
        except (zipfile.BadZipFile, zlib.error) as error:
            raise CorruptImageError(f"{origin} is damaged: {error}") from error

    return checked


def _is_hidden(path: PurePosixPath) -> bool:
    """Whether the file is left behind by an operating system, not part of the data."""
    return path.name == "Thumbs.db" or any(
        part.startswith(".") or part == "__MACOSX" for part in path.parts
    )
