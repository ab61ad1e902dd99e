"""A source of the user's own pictures, in class folders.

Each class is a folder; `class_folders.py` finds the folders of classes and splits. Or a list has
the class of each file (`image_lists.py`). Archives are read like folders. If two pictures have the
same pixels, only the first is used, and a message names both.
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
from tf_metalstm.data.sources.folders import LeftOut
from tf_metalstm.data.sources.image_lists import ListedImage, read_list
from tf_metalstm.data.sources.pixels import color_as_stored, gray_as_stored
from tf_metalstm.data.sources.staging import ImageIdentity, StagedSplits, Staging
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.files import given_path
from tf_metalstm.options import option
from tf_metalstm.parts import Part

IMAGE_SIZE = 84
CLASS_SPLITS = ("folders", "seed")


@dataclass(frozen=True)
class FolderOptions(FileOptions, ClassSplitOptions):
    """Options of a folder of pictures."""

    class_split: str | None = option(
        None,
        "How the classes are split: by the folders train, validation and test (folders), or by a "
        "seed (seed); default: by these folders if they exist, else by a seed.",
        choices=CLASS_SPLITS,
        settled=True,
        alike=True,
    )
    image_list: str | None = option(
        None,
        "A CSV or JSON-lines file with the class of each image (columns file, label and "
        "optionally split); its paths are relative to data_dir.",
        may_change=True,
        is_path=True,
    )
    color: bool = option(True, "Use color; false: gray.", settled=True, alike=True)


class Folder(FileSource):
    """Class folders, or a list, of the user's pictures.

    Args:
        data_dir: the folder, or one archive.
        prepared_dir: folder of the prepared data sets.
        image_size: height and width in pixels; pictures are resized without cropping.
        skip_corrupt: whether to leave out corrupt files instead of raising an error.
        class_split: "folders", "seed", or None for the folders if they exist, else the seed.
        split_seed: seed of the split of the classes, if neither folders nor list have a split.
        split_fractions: fractions of the classes for train, validation and test.
        image_list: a list with the class of each image; None for class folders.
        color: whether to use color or gray.
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
        path = given_path(data_dir, "--data_dir") if data_dir else None
        self._archive = path if path and raw_files.is_archive(path) else None
        super().__init__(
            self._archive.parent if self._archive else path,
            prepared_dir,
            image_size=image_size,
            skip_corrupt=skip_corrupt,
        )
        check_fractions(split_fractions)
        self._class_split = class_split
        self._split = (split_seed, tuple(split_fractions))
        self._image_list = given_path(image_list, "--image_list") if image_list else None
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
        """Height and width of the option image_size; three channels for color, one for gray."""
        return (self._image_size, self._image_size, 3 if self._color else 1)

    def config_name(self) -> str:
        """Returns the image size with the fingerprint of the raw files."""
        return f"{self._image_size}px-{self.fingerprint()}"

    def preparation_options(self) -> tuple[object, ...]:
        """Returns the options that change the prepared data, with those of classes and splits."""
        archive = self._archive.name if self._archive else None
        has_list = self._image_list is not None
        how = (self._class_split, *self._split, archive, has_list, self._color)
        return (*super().preparation_options(), *how)

    def locations(self, data_dir: Path) -> list[Path]:
        """Returns the folder, or its archives if it has no pictures outside of them."""
        if self._archive is not None:
            return [self._archive]
        archives = [path for path in sorted(data_dir.iterdir()) if raw_files.is_archive(path)]
        has_pictures = any(
            may_be_picture(PurePosixPath(name)) and file.parent != data_dir
            for name, file in raw_files.named_files(data_dir)
        )
        return [data_dir] if has_pictures or not archives else archives

    def index_files(self, data_dir: Path) -> list[Path]:
        """Returns the list of images, if there is one."""
        if self._image_list is None:
            return []
        for path in (data_dir / self._image_list, self._image_list):
            if path.is_file():
                return [path]
        raise MissingDataError(
            f"folder: the image_list {self._image_list} is neither a file nor in {data_dir}: "
            "correct its path"
        )

    def files_of(
        self, location: Path, left_out: LeftOut | None = None
    ) -> Iterator[raw_files.RawFile]:
        """Yields the files in a location; paths begin with the name of the folder or archive."""
        for file in super().files_of(location, left_out):
            yield (
                file if location.is_dir() else file._replace(path=_in_archive(location, file.path))
            )

    def identify(self, path: PurePosixPath) -> ImageIdentity | None:
        """Returns class and split of a file, from its folders or from the list."""
        path = self._inside(path)
        if self._image_list is not None:
            listed = self._listed.get(path) or self._listed.get(PurePosixPath(*path.parts[1:]))
            return listed and ImageIdentity(listed.split, _plain(listed.label), _plain(str(path)))
        folder = self._folders[path] if may_be_picture(path) else None
        return folder and ImageIdentity(folder.split, _plain(folder.name), _plain(str(path)))

    def decode(self, encoded: bytes, origin: str) -> tuple[np.ndarray, bytes]:
        """Returns the resized pixels, as `load` will return them, and the bytes to store."""
        stored = color_as_stored if self._color else gray_as_stored
        return stored(encoded, self._image_size, origin)

    def leave_out(
        self, staging: Staging, identity: ImageIdentity, error: CorruptImageError
    ) -> None:
        """Counts a corrupt file or raises its error.

        If the file has no ending of an image and is in no list, it counts as another kind of file.
        """
        if self._image_list is None and not identity.file_name.lower().endswith(IMAGE_SUFFIXES):
            staging.left_out.add("files that are not images", identity.file_name)
        else:
            super().leave_out(staging, identity, error)

    def assign_splits(self, groups: dict[str, str]) -> dict[str, str]:
        """Returns the splits of the folders or of the list, or else splits by the seed."""
        if any(groups.values()):
            return groups
        return split_by_seed(groups, *self._split)

    def stage(self) -> StagedSplits:
        """Returns all images; all files in the list must exist."""
        if self._image_list is not None:
            self._check_listed()
        return super().stage()

    def staging(self) -> Staging:
        """Returns a collection that leaves out images with the pixels of an earlier one."""
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
        """The paths of all files in all locations."""
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
            return {file: image._replace(split="") for file, image in listed.items()}
        if self._class_split == "folders" and not next(iter(listed.values())).split:
            raise InconsistentDataError(
                f"folder: {path} has no column called split: add one, or set class_split=seed"
            )
        return listed

    def _inside(self, path: PurePosixPath) -> PurePosixPath:
        """Returns a path without the name of the data folder; keeps the name of an archive."""
        return PurePosixPath(*path.parts[1:]) if self._is_folder else path

    def _check_listed(self) -> None:
        paths = {part for path in self._paths for part in (path, PurePosixPath(*path.parts[1:]))}
        missing = sorted(str(file) for file in self._listed if file not in paths)
        if missing and not self._skip_corrupt:
            raise MissingDataError(
                f"folder: {len(missing)} of {len(self._listed)} files of the list are not in "
                f"{self._archive or self._data_dir}, the first {missing[0]}: correct its paths, or "
                "leave such files out with skip_corrupt"
            )


def _in_archive(archive: Path, path: PurePosixPath) -> PurePosixPath:
    """Returns the path of a member as if the archive were a folder of the same name."""
    suffix = next(s for s in raw_files.ARCHIVE_SUFFIXES if archive.name.lower().endswith(s))
    stem = archive.name[: -len(suffix)]
    parts = [part for part in path.parts if part != "/"]
    return PurePosixPath(*parts) if parts[:1] == [stem] else PurePosixPath(stem, *parts)


def _plain(name: str) -> str:
    """Returns a name as normalized Unicode text; bytes that are not UTF-8 become escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)
