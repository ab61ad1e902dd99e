"""Reads image files from folders, zip and tar archives.

Nothing is extracted to disk, and nothing is written into the folder of the raw files. A
tar archive is read once, as a stream from front to back, because each jump in a
compressed archive would decompress it again.
"""

import gzip
import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tf_metalstm.data.sources.base import CorruptImageError, InconsistentDataError
from tf_metalstm.data.sources.folders import CLUTTER, LeftOut, files_below, is_clutter

_TAR_OPENERS: dict[str, Callable[..., Any]] = {
    ".tar": open,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.xz": lzma.open,
}

ARCHIVE_SUFFIXES = (".zip", *_TAR_OPENERS)

# Images of few-shot data sets have kilobytes. A file that claims to have more than
# this is damaged or malicious, and must not fill the memory.
MAX_IMAGE_BYTES = 64 * 2**20

# The errors that the modules for archives raise for damaged files.
_DAMAGE = (
    EOFError,
    NotImplementedError,  # a compression that is not known
    RuntimeError,  # a password is needed
    gzip.BadGzipFile,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


class RawFile(NamedTuple):
    """One file of a folder or an archive.

    Attributes:
        path: path inside the folder or archive, with the top folder.
        origin: name of the file and of its archive, for messages.
        read: returns the bytes; must be called before the next file is taken. Raises
            CorruptImageError if this file is damaged, InconsistentDataError if the whole
            archive is damaged.
    """

    path: PurePosixPath
    origin: str
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Returns whether a path is an archive that this module reads, by its name."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def iterate_files(location: Path, left_out: LeftOut | None = None) -> Iterator[RawFile]:
    """Yields the files in a folder or an archive, without those of operating systems.

    Args:
        location: a folder, or an archive with one of `ARCHIVE_SUFFIXES`.
        left_out: collects the files that are left out.

    Raises:
        InconsistentDataError: the archive is damaged.
    """
    if location.is_dir():
        yield from _files_of_folder(location, left_out)
        return
    is_zip = location.name.lower().endswith(".zip")
    try:
        for file in _files_of_zip(location) if is_zip else _files_of_tar(location):
            if not is_clutter(file.path):
                yield file
            elif left_out is not None:
                left_out.add(CLUTTER, file.origin)
    except _DAMAGE as error:
        raise _damaged_archive(location, error) from error


def named_files(folder: Path, left_out: LeftOut | None = None) -> Iterator[tuple[str, Path]]:
    """Yields name and path of all files in a folder; the name begins with that of the folder."""
    for file in files_below(folder, left_out):
        yield folder.name + str(file).removeprefix(str(folder)), file


def fingerprint(contents: Iterable[tuple[str, str]], *options: object) -> str:
    """Returns a hash of raw files and options, ten hexadecimal digits.

    Args:
        contents: name and digest of each file, without the path of the folder.
        *options: the options that the prepared data depend on; their `repr` must be stable.
    """
    digest = hashlib.sha256(repr(options).encode())
    for name, of_file in sorted(contents):
        digest.update(b"\n" + os.fsencode(name) + b":" + of_file.encode())
    return digest.hexdigest()[:10]


def _files_of_folder(folder: Path, left_out: LeftOut | None) -> Iterator[RawFile]:
    for name, file in named_files(folder, left_out):
        read = partial(_read_file, file.read_bytes, str(file), file.stat().st_size)
        yield RawFile(PurePosixPath(name), str(file), read)


def _files_of_zip(archive: Path) -> Iterator[RawFile]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            if not member.is_dir():
                origin = f"{member.filename} in {archive}"
                read = partial(_read_file, partial(opened.read, member), origin, member.file_size)
                yield RawFile(PurePosixPath(member.filename), origin, read)


def _files_of_tar(archive: Path) -> Iterator[RawFile]:
    suffix = next(s for s in _TAR_OPENERS if archive.name.lower().endswith(s))
    with _TAR_OPENERS[suffix](archive, "rb") as stream:
        with tarfile.open(fileobj=stream, mode="r|") as opened:
            for member in opened:
                if member.isfile():
                    origin = f"{member.name} in {archive}"
                    from_tar = partial(_read_tar_member, archive, opened, member)
                    read = partial(_read_file, from_tar, origin, member.size)
                    yield RawFile(PurePosixPath(member.name), origin, read)
        # tarfile does not notice if an archive was cut off between two members. If we
        # read on, the decompressor notices that the end is missing. A complete archive
        # without compression ends with an empty block.
        while stream.read(2**20):
            pass
        if suffix == ".tar" and any(_last_block(archive)):
            raise tarfile.ReadError("its end is missing")


def _last_block(archive: Path) -> bytes:
    with archive.open("rb") as opened:
        opened.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
        return opened.read()


def _read_tar_member(archive: Path, opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        content = opened.extractfile(member)
        return content.read() if content else b""
    except _DAMAGE as error:
        raise _damaged_archive(archive, error) from error


def _read_file(read: Callable[[], bytes], origin: str, size: int) -> bytes:
    if size > MAX_IMAGE_BYTES:
        raise CorruptImageError(
            f"{origin} has {size} bytes, but an image may have at most {MAX_IMAGE_BYTES}"
        )
    try:
        return read()
    except _DAMAGE as error:
        raise CorruptImageError(f"{origin} is damaged ({error})") from error


def _damaged_archive(archive: Path, error: Exception) -> InconsistentDataError:
    return InconsistentDataError(
        f"the archive {archive} is damaged or cut off ({str(error) or type(error).__name__}): "
        "download or copy it again"
    )
