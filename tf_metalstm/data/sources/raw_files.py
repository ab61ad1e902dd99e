"""Reading image files where they lie: in folders, zip and tar archives.

Nothing is ever extracted to disk, and nothing is written beside the raw files.
A tar archive is read as a stream, once, from front to back: seeking in a
compressed one would decompress it again and again.
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

# An image of a few-shot data set has kilobytes; a member that claims more than
# this is damaged or hostile, and must not fill the memory.
MAX_IMAGE_BYTES = 64 * 2**20

# What the modules for archives raise for bytes that are not what they should be.
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
        path: its path inside the folder or archive, the top folder included.
        origin: names the file, and the archive that it is in, in messages.
        read: returns the bytes; call it before the next file is asked for. Raises
            CorruptImageError where this file is damaged, InconsistentDataError
            where its whole archive is.
    """

    path: PurePosixPath
    origin: str
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive this module reads."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES) and path.is_file()


def iterate_files(location: Path, left_out: LeftOut | None = None) -> Iterator[RawFile]:
    """The files in a folder or an archive, without those of operating systems.

    Args:
        location: a folder, or an archive with one of `ARCHIVE_SUFFIXES`.
        left_out: notes what is left out.

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
    """Name and path of all files of a folder; a name begins with that of the folder."""
    for file in files_below(folder, left_out):
        yield folder.name + str(file).removeprefix(str(folder)), file


def fingerprint(contents: Iterable[tuple[str, str]], *options: object) -> str:
    """Ten hexadecimal digits that change when raw files or options change.

    Args:
        contents: name and digest of each file; where the files lie is not in them.
        *options: whatever else the prepared data depend on; `repr` must be stable.
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
        # tarfile takes an archive that was cut off between two members for a whole
        # one. Reading on lets a decompressor notice that its end is missing; a plain
        # archive that is whole ends with an empty block.
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
            f"{origin} has {size} bytes, more than the {MAX_IMAGE_BYTES} an image may have"
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
