"""Sources that read image files from a folder of the user, `data_dir`."""

import abc
import datetime
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar

import numpy as np
from tensorflow_datasets.core.utils import tqdm  # obeys tfds.disable_progress_bar()

from tf_metalstm.data.options import DataDirOptions, PreparedDirOptions
from tf_metalstm.data.sources import raw_files
from tf_metalstm.data.sources.base import CorruptImageError, MissingDataError
from tf_metalstm.data.sources.builder import ImageClassesBuilder
from tf_metalstm.data.sources.contents import KeptDigests
from tf_metalstm.data.sources.folders import LeftOut, is_clutter
from tf_metalstm.data.sources.known_folders import KnownFolder, KnownFolders
from tf_metalstm.data.sources.prepared import PreparedOptions, PreparedSource
from tf_metalstm.data.sources.raw_files import RawFile
from tf_metalstm.data.sources.staging import ImageIdentity, StagedSplits, Staging
from tf_metalstm.files import given_path
from tf_metalstm.options import option

_T = TypeVar("_T")

# Threads suffice, because Pillow releases the interpreter lock while it decodes.
_WORKERS = os.cpu_count() or 1

IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pgm", ".png", ".ppm", ".qoi", ".tif", ".tiff", ".webp"),
)
"""Endings of the names of image files, also of kinds that cannot be read."""


@dataclass(frozen=True)
class FilePlaceOptions(PreparedDirOptions, DataDirOptions):
    """Options about image files and their preparation."""

    image_size: int | None = option(
        None,
        "Height and width of prepared images in pixels; default: the size of the source.",
        at_least=1,
        settled=True,
    )
    skip_corrupt: bool = option(False, "Leave out image files that cannot be read.")


@dataclass(frozen=True)
class FileOptions(FilePlaceOptions, PreparedOptions):
    """Options of every source that reads image files."""


class FileSource(PreparedSource):
    """Reads the image files of `data_dir`; never writes there.

    After the preparation the files may be moved or deleted. If `data_dir` is missing or empty, the
    data that were prepared from it are used, with a message.

    Args:
        data_dir: the folder with the raw files, as described by `layout`.
        prepared_dir: folder of the prepared data sets.
        image_size: height and width of the prepared images in pixels.
        skip_corrupt: whether to leave out and count corrupt files, instead of raising an
            error for the first one.
    """

    layout: str
    """The expected content of `data_dir` and where to get it, for error messages."""

    places: str
    """The expected path of an image inside its folder or archive, in a few words."""

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        prepared_dir: str | os.PathLike[str] | None = None,
        *,
        image_size: int,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(prepared_dir)
        self._data_dir = given_path(data_dir, "--data_dir") if data_dir else None
        self._image_size = image_size
        self._skip_corrupt = skip_corrupt
        self._gone: KnownFolder | None = None
        self._fingerprint = ""  # the result of the last call of fingerprint()

    @abc.abstractmethod
    def locations(self, data_dir: Path) -> list[Path]:
        """Returns the archives and folders to read; raises MissingDataError if one is missing."""

    def index_files(self, data_dir: Path) -> list[Path]:
        """Returns files with the classes of images, such as CSV files; none by default."""
        del data_dir
        return []

    @abc.abstractmethod
    def identify(self, path: PurePosixPath) -> ImageIdentity | None:
        """Returns the identity of an image by its path; None if the file is not in the data."""

    @abc.abstractmethod
    def decode(self, encoded: bytes, origin: str) -> tuple[np.ndarray, bytes]:
        """Returns pixels, uint8 [h, w, c], and the bytes to store; raises CorruptImageError."""

    @abc.abstractmethod
    def assign_splits(self, groups: dict[str, str]) -> dict[str, str]:
        """Returns {class name: split} from {class name: group}."""

    def data_dir(self) -> Path:
        """Returns the folder with the raw files.

        Raises:
            MissingDataError: no folder was named, or it does not exist.
        """
        if self._data_dir is None:
            raise MissingDataError(f"{self.name} needs a data_dir. {self.layout}")
        if raw_files.is_archive(self._data_dir):
            raise MissingDataError(
                f"{self.name}: the data_dir {self._data_dir} is an archive: name the folder that "
                "the archive is in"
            )
        if not self._data_dir.is_dir():
            raise MissingDataError(
                f"{self.name}: the data_dir {self._data_dir} is not a folder. {self.layout}"
            )
        return self._data_dir

    def preparation_options(self) -> tuple[object, ...]:
        """Returns the options that change the prepared data; their `repr` must be stable."""
        return self._image_size, self._skip_corrupt

    def fingerprint(self) -> str:
        """Returns a hash of the names and contents of the raw files, and of the options.

        Raises:
            MissingDataError: the raw files do not exist, and no prepared data are known.
        """
        self._gone = self._known_if_gone()
        if self._gone is not None:
            self._fingerprint = self._gone.fingerprint
        else:
            data_dir = self.data_dir()
            files = list(self._taken_files(data_dir))
            kept = KeptDigests(self._prepared_dir / "known_files", data_dir)
            digests = kept.of(file for _, file in files)
            contents = ((name, digests[file]) for name, file in files)
            self._fingerprint = raw_files.fingerprint(contents, *self.preparation_options())
        return self._fingerprint

    def origin(self) -> str:
        """Returns a text with the folders in which these raw files were found."""
        known = [k for k in self._known_folders().all() if k.fingerprint == self._fingerprint]
        return "\n".join(f"Raw files: {k.resolved} (found on {k.date})" for k in known)

    def after_preparation(self, builder: ImageClassesBuilder) -> None:
        """Saves the folder of the raw files; prints the former folder if the files are gone."""
        if self._gone is not None:
            print(
                f"{self.name}: {self._data_dir} is missing or empty. Using the data that were "
                f"prepared from {self._gone.resolved} on {self._gone.date}: {builder.data_dir}"
            )
            return
        date = datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
        if self._known_folders().write(self.data_dir(), self._fingerprint, date):
            (Path(builder.data_dir).parent / "what.txt").unlink(missing_ok=True)
        super().after_preparation(builder)

    def _known_folders(self) -> KnownFolders:
        options = repr(self.preparation_options())
        return KnownFolders(self._prepared_dir / "known_folders", self.name, options)

    def _known_if_gone(self) -> KnownFolder | None:
        """Returns the facts about a folder that is missing or empty, if it was prepared once."""
        folder = self._data_dir
        if folder is None or folder.is_file():
            return None
        if folder.is_dir() and any(not is_clutter(PurePath(f.name)) for f in folder.iterdir()):
            return None
        return self._known_folders().find(folder)

    def _taken_files(self, data_dir: Path) -> Iterator[tuple[str, Path]]:
        """Yields name and path of the archives, and of images and lists outside of archives."""
        for location in self.locations(data_dir):
            if location.is_dir():
                for name, file in raw_files.named_files(location):
                    if self.identify(PurePosixPath(name)) is not None:
                        yield name, file
            else:
                yield location.name, location
        for file in self.index_files(data_dir):
            yield file.name, file

    def stage(self) -> StagedSplits:
        """Returns all images; reads every file once, and decodes in several threads."""
        staging = self.staging()
        with (
            tqdm(desc=f"Reading {self.name}", unit=" images", mininterval=1.0) as progress,
            ThreadPoolExecutor(_WORKERS) as pool,
        ):
            for identity, decoded in _lagging(self._submit_all(pool, staging), 8 * _WORKERS):
                try:
                    staging.add(identity, *decoded.result())
                except CorruptImageError as error:
                    self.leave_out(staging, identity, error)
                progress.update()
        if not staging.num_images:
            raise MissingDataError(
                f"{self.name}: {self._data_dir} has no image in the expected layout"
                f"{''.join(f'; {line}' for line in staging.left_out.lines())}. {self.layout}"
            )
        return staging.finish(self.assign_splits)

    def staging(self) -> Staging:
        """Returns where images are collected."""
        return Staging(self.name, skip_corrupt=self._skip_corrupt, root=self._data_dir)

    def _submit_all(
        self, pool: Executor, staging: Staging
    ) -> Iterator[tuple[ImageIdentity, Future]]:
        """Yields the identity of each image, read in order, and its decoding in the pool."""
        for location in self.locations(self.data_dir()):
            for file in self.files_of(location, staging.left_out):
                identity = self.identify(file.path)
                if identity is None:
                    staging.left_out.add(self._why_not(file.path), file.origin)
                    continue
                try:
                    encoded = file.read()
                except CorruptImageError as error:
                    self.leave_out(staging, identity, error)
                else:
                    yield identity, pool.submit(self.decode, encoded, file.origin)

    def files_of(self, location: Path, left_out: LeftOut | None = None) -> Iterator[RawFile]:
        """Yields the files in one of the locations."""
        return raw_files.iterate_files(location, left_out)

    def leave_out(
        self, staging: Staging, identity: ImageIdentity, error: CorruptImageError
    ) -> None:
        """Counts a file that cannot be read, or raises its error."""
        del identity
        staging.skip(error)

    def _why_not(self, path: PurePosixPath) -> str:
        """Returns the reason why a file is not in the data."""
        name = path.name.lower()
        if name.endswith(raw_files.ARCHIVE_SUFFIXES):
            return "archives inside archives or folders (unpack them)"
        if name.endswith(IMAGE_SUFFIXES):
            return f"images that are not at {self.places}"
        return "files that are not images"


def _lagging(items: Iterable[_T], lag: int) -> Iterator[_T]:
    """Yields the items in their order, each after `lag` later items were taken."""
    pending: deque[_T] = deque()
    for item in items:
        pending.append(item)
        if len(pending) > lag:
            yield pending.popleft()
    yield from pending
