"""Sources whose images are files that the user put into a folder, `data_dir`."""

import abc
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from tensorflow_datasets.core.utils import tqdm  # obeys tfds.disable_progress_bar()

from tf_metalstm.data.sources import raw_files
from tf_metalstm.data.sources.base import CorruptImageError, MissingDataError
from tf_metalstm.data.sources.prepared import PreparedSource
from tf_metalstm.data.sources.staging import ImageIdentity, StagedSplits, Staging

_T = TypeVar("_T")

# Pillow lets go of the interpreter lock while it decodes, so threads do.
_WORKERS = os.cpu_count() or 1


class FileSource(PreparedSource):
    """Reads the image files of `data_dir`, which it never writes to.

    Args:
        data_dir: the folder with the raw files, as described by `layout`.
        prepared_dir: where the prepared data set is kept.
        image_size: height and width of the prepared images in pixels.
        skip_corrupt: leave corrupt files out and count them, instead of raising
            for the first one.
    """

    layout: str
    """What is expected in `data_dir` and where to get it, for error messages."""

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        prepared_dir: str | os.PathLike[str] | None = None,
        *,
        image_size: int,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(prepared_dir)
        self._data_dir = None if data_dir is None else Path(data_dir).expanduser()
        self._image_size = image_size
        self._skip_corrupt = skip_corrupt

    @abc.abstractmethod
    def locations(self, data_dir: Path) -> list[Path]:
        """The archives and folders to read; raises MissingDataError for an essential one."""

    def index_files(self, data_dir: Path) -> list[Path]:
        """Files that are no images but say which image is what; none by default."""
        del data_dir
        return []

    @abc.abstractmethod
    def identify(self, path: PurePosixPath) -> ImageIdentity | None:
        """Which image a file of a location is; None for one that is none of the data."""

    @abc.abstractmethod
    def decode(self, encoded: bytes, origin: str) -> tuple[np.ndarray, bytes]:
        """Pixels, uint8 [h, w, c], and what to store; raises CorruptImageError."""

    @abc.abstractmethod
    def assign_splits(self, groups: dict[str, str]) -> dict[str, str]:
        """From {class name: group} to {class name: split}."""

    def data_dir(self) -> Path:
        """The folder with the raw files.

        Raises:
            MissingDataError: it was not given or does not exist.
        """
        if self._data_dir is None:
            raise MissingDataError(f"{self.name} needs a data_dir. {self.layout}")
        if not self._data_dir.is_dir():
            raise MissingDataError(
                f"{self.name}: the data_dir {self._data_dir} is not a folder. {self.layout}"
            )
        return self._data_dir

    def fingerprint(self, *options: object) -> str:
        """Changes with the raw files, the common options and `options`."""
        data_dir = self.data_dir()
        files = [*self.locations(data_dir), *self.index_files(data_dir)]
        return raw_files.fingerprint(files, self._image_size, self._skip_corrupt, *options)

    def stage(self) -> StagedSplits:
        """Reads every file of the locations once, decoded by several threads."""
        staging = Staging(self.name, skip_corrupt=self._skip_corrupt)
        with (
            tqdm(desc=f"Reading {self.name}", unit=" images", mininterval=1.0) as progress,
            ThreadPoolExecutor(_WORKERS) as pool,
        ):
            for identity, decoded in _lagging(self._submit_all(pool, staging), 8 * _WORKERS):
                try:
                    staging.add(identity, *decoded.result())
                except CorruptImageError as error:
                    staging.skip(error)
                progress.update()
        if not staging.num_images:
            raise MissingDataError(
                f"{self.name}: no image of the expected layout is in {self._data_dir}. "
                f"{self.layout}"
            )
        return staging.finish(self.assign_splits)

    def _submit_all(
        self, pool: Executor, staging: Staging
    ) -> Iterator[tuple[ImageIdentity, Future]]:
        """Reads the files in order and leaves their decoding to the pool."""
        for location in self.locations(self.data_dir()):
            for file in raw_files.iterate_files(location):
                identity = self.identify(file.path)
                if identity is None:
                    continue
                try:
                    encoded = file.read()
                except CorruptImageError as error:
                    staging.skip(error)
                else:
                    yield identity, pool.submit(self.decode, encoded, file.origin)


def _lagging(items: Iterable[_T], lag: int) -> Iterator[_T]:
    """The same items in the same order, each when `lag` later ones have been drawn."""
    pending: deque[_T] = deque()
    for item in items:
        pending.append(item)
        if len(pending) > lag:
            yield pending.popleft()
    yield from pending
