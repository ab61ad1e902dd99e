"""Class folders of any image files: the user's own pictures as a source of tasks.

Each class is a folder; which folders are classes and splits is in `class_folders.py`. Or a list
says which file is of which class (`image_lists.py`). Archives are read as folders are. A picture
that is there twice, by its pixels, counts once, and is named.
"""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from tf_metalstm.data.sources import raw_files
from tf_metalstm.data.sources.base import CorruptImageError, InconsistentDataError, MissingDataError
from tf_metalstm.data.sources.class_folders import ClassFolders, may_be_picture
from tf_metalstm.data.sources.class_splits import (
    ClassSplitOptions,
    check_fractions,
    split_by_seed,
)
from tf_metalstm.data.sources.file_source import IMAGE_SUFFIXES, FileOptions, FileSource
from tf_metalstm.data.sources.folders import LeftOut, given_folder
from tf_metalstm.data.sources.image_lists import ListedImage, read_list
from tf_metalstm.data.sources.pixels import color_as_stored, encode_png, gray_pixels
from tf_metalstm.data.sources.staging import ImageIdentity, StagedSplits, Staging
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.options import option
from tf_metalstm.parts import Part

IMAGE_SIZE = 84
CLASS_SPLITS = ("folders", "seed")


@dataclass(frozen=True)
class FolderOptions(FileOptions, ClassSplitOptions):
    """Options of a folder of pictures."""

    class_split: str | None = option(
        None,
        "How the classes are split: by the folders train, validation and test, or by a seed; "
        "default: by the folders where there are some.",
        choices=CLASS_SPLITS,
        settled=True,
        alike=True,
    )
    image_list: str | None = option(
        None,
        "A CSV or JSON-lines file that says which image is of which class (columns file, label "
        "and, if wanted, split); its paths are relative to data_dir.",
        may_change=True,
        is_path=True,
    )
    color: bool = option(True, "Images in color; false: gray.", settled=True, alike=True)


class Folder(FileSource):
    """Class folders, or a list, of the user's pictures.

    Args:
        data_dir: the folder, or one archive.
        prepared_dir: where the prepared data set is kept.
        image_size: height and width in pixels; pictures are squeezed to them.
        skip_corrupt: leave corrupt files out instead of raising.
        class_split: "folders", "seed", or None for the folders where there are some.
        split_seed: of the split of the classes, where no folders and no list bring one.
        split_fractions: parts of the classes for train, validation and test.
        image_list: a list that says which image is of which class; None for folders.
        color: in color, or gray.
    """

    part = Part("folder", "A folder of your own pictures", "", FolderOptions)
    name = "folder"
    description = "Pictures from class folders, squeezed to a square."
    places = "<class>/<file>"
    layout = (
        "It must hold a folder of image files for each class, of any names; or the folders train, "
        "validation and test with the class folders inside; or archives of such (.zip, .tar, "
        ".tar.gz, .tgz, .tar.xz)"
    )

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        prepared_dir: str | os.PathLike[str] | None = None,
        *,
        image_size: int = IMAGE_SIZE,
        skip_corrupt: bool = False,
        class_split: str | None = None,
        split_seed: int = 0,
        split_fractions: tuple[float, ...] = (0.6, 0.2, 0.2),
        image_list: str | os.PathLike[str] | None = None,
        color: bool = True,
    ) -> None:
        given = given_folder(data_dir, "--data_dir") if data_dir else None
        self._archive = given if given and raw_files.is_archive(given) else None
        super().__init__(
            self._archive.parent if self._archive else given,
            prepared_dir,
            image_size=image_size,
            skip_corrupt=skip_corrupt,
        )
        check_fractions(split_fractions)
        self._class_split = class_split
        self._split = (split_seed, tuple(split_fractions))
        self._image_list = given_folder(image_list, "--image_list") if image_list else None
        self._color = color

    @classmethod
    def from_options(cls, options: FolderOptions) -> ImageTasks:
        source = cls(
            options.data_dir,
            options.prepared_dir,
            image_size=options.image_size or IMAGE_SIZE,
            skip_corrupt=options.skip_corrupt,
            class_split=options.class_split,
            split_seed=options.split_seed,
            split_fractions=options.split_fractions,
            image_list=options.image_list,
            color=options.color,
        )
        return ImageTasks.of(source, options)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """As high and as wide as was asked for, in color or gray."""
        return (self._image_size, self._image_size, 3 if self._color else 1)

    def config_name(self) -> str:
        """Returns the image size with the fingerprint of the raw files."""
        return f"{self._image_size}px-{self.fingerprint()}"

    def preparation_options(self) -> tuple[object, ...]:
        """Returns also how classes are found and split."""
        archive = self._archive.name if self._archive else None
        has_list = self._image_list is not None
        how = (self._class_split, *self._split, archive, has_list, self._color)
        return (*super().preparation_options(), *how)

    def locations(self, data_dir: Path) -> list[Path]:
        """Returns the folder; or its archives, where they are all there is."""
        if self._archive is not None:
            return [self._archive]
        archives = [path for path in sorted(data_dir.iterdir()) if raw_files.is_archive(path)]
        has_pictures = any(
            may_be_picture(PurePosixPath(name)) and file.parent != data_dir
            for name, file in raw_files.named_files(data_dir)
        )
        return [data_dir] if has_pictures or not archives else archives

    def index_files(self, data_dir: Path) -> list[Path]:
        """The list, where one was given."""
        if self._image_list is None:
            return []
        for path in (data_dir / self._image_list, self._image_list):
            if path.is_file():
                return [path]
        raise MissingDataError(
            f"folder: the image_list {self._image_list} is neither a file nor in {data_dir}: give "
            "its path"
        )

    def files_of(
        self, location: Path, left_out: LeftOut | None = None
    ) -> Iterator[raw_files.RawFile]:
        """The files in a location; their paths begin with the name of the folder or archive."""
        for file in super().files_of(location, left_out):
            yield (
                file if location.is_dir() else file._replace(path=_in_archive(location, file.path))
            )

    def identify(self, path: PurePosixPath) -> ImageIdentity | None:
        """Returns class and split of a file, from its folders or the list."""
        path = self._inside(path)
        if self._image_list is not None:
            listed = self._listed.get(path) or self._listed.get(PurePosixPath(*path.parts[1:]))
            return listed and ImageIdentity(listed.split, _plain(listed.label), _plain(str(path)))
        found = self._folders[path] if may_be_picture(path) else None
        return found and ImageIdentity(found.split, _plain(found.name), _plain(str(path)))

    def decode(self, encoded: bytes, origin: str) -> tuple[np.ndarray, bytes]:
        """Returns the picture, squeezed to size, as it will be loaded, and what to store of it."""
        if self._color:
            return color_as_stored(encoded, self._image_size, origin)
        pixels = gray_pixels(encoded, self._image_size, origin)
        return pixels, encode_png(pixels)

    def leave_out(
        self, staging: Staging, identity: ImageIdentity, error: CorruptImageError
    ) -> None:
        """Counts a corrupt file or raises; what neither name nor list calls an image is none."""
        if self._image_list is None and not identity.file_name.lower().endswith(IMAGE_SUFFIXES):
            staging.left_out.add("files that are not images", identity.file_name)
        else:
            super().leave_out(staging, identity, error)

    def assign_splits(self, groups: dict[str, str]) -> dict[str, str]:
        """Returns the splits of the user, or such by the seed."""
        if any(groups.values()):
            return groups
        return split_by_seed(groups, *self._split)

    def stage(self) -> StagedSplits:
        """Reads all files; files that a list names must be there."""
        if self._image_list is not None:
            self._check_listed()
        return super().stage()

    def staging(self) -> Staging:
        """Returns where images are collected, doubles left out."""
        return Staging(
            self.name, skip_corrupt=self._skip_corrupt, root=self._data_dir, once_each=True
        )

    def _why_not(self, path: PurePosixPath) -> str:
        if self._image_list is not None:
            return "not in the list"
        return super()._why_not(path)

    @cached_property
    def _is_folder(self) -> bool:
        return self.locations(self.data_dir())[0].is_dir()

    @cached_property
    def _paths(self) -> list[PurePosixPath]:
        """Of all files of all locations."""
        data_dir = self.data_dir()
        return [
            self._inside(file.path)
            for location in self.locations(data_dir)
            for file in self.files_of(location)
        ]

    @cached_property
    def _folders(self) -> ClassFolders:
        by_folders = None if self._class_split is None else self._class_split == "folders"
        return ClassFolders(self._paths, by_folders)

    @cached_property
    def _listed(self) -> dict[PurePosixPath, ListedImage]:
        [path] = self.index_files(self.data_dir())
        listed = read_list(path, self.name)
        if self._class_split == "seed":
            return {file: found._replace(split="") for file, found in listed.items()}
        if self._class_split == "folders" and not next(iter(listed.values())).split:
            raise InconsistentDataError(
                f"folder: {path} has no column called split: add one, or give class_split=seed"
            )
        return listed

    def _inside(self, path: PurePosixPath) -> PurePosixPath:
        """Without the name of the folder that all is in; that of an archive stays."""
        return PurePosixPath(*path.parts[1:]) if self._is_folder else path

    def _check_listed(self) -> None:
        there = {part for path in self._paths for part in (path, PurePosixPath(*path.parts[1:]))}
        missing = sorted(str(file) for file in self._listed if file not in there)
        if missing and not self._skip_corrupt:
            raise MissingDataError(
                f"folder: {len(missing)} of {len(self._listed)} files of the list are not in "
                f"{self._archive or self._data_dir}, the first {missing[0]}: mend its paths, or "
                "leave such files out with skip_corrupt"
            )


def _in_archive(archive: Path, path: PurePosixPath) -> PurePosixPath:
    """The path of a member as if the archive were a folder of its name."""
    suffix = next(s for s in raw_files.ARCHIVE_SUFFIXES if archive.name.lower().endswith(s))
    stem = archive.name[: -len(suffix)]
    parts = [part for part in path.parts if part != "/"]
    return PurePosixPath(*parts) if parts[:1] == [stem] else PurePosixPath(stem, *parts)


def _plain(name: str) -> str:
    """A name as text: the same accents from every system, bytes that are no UTF-8 written out."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)
