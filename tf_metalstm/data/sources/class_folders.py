"""Finds class folders by the paths of all files; the names of the folders may be anything.

    cat/1.jpg, dog/1.jpg                     classes cat and dog
    animals/cat/1.jpg, tools/hammer/1.jpg    classes animals/cat and tools/hammer
    cat/1.jpg, cat/garden/2.jpg              class cat
    all/train/cat/1.jpg, all/test/dog/1.jpg  class cat of train, class dog of test

A folder with pictures is a class. All pictures in its subfolders belong to the class too. In a
folder without pictures, the subfolders are searched. Outer folders that contain everything, as in
archives, are ignored. On the highest level below them, folders with the names train, validation
(val, valid, dev) and test are splits, if they have folders with pictures.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from tf_metalstm.data.sources.base import InconsistentDataError
from tf_metalstm.data.sources.file_source import IMAGE_SUFFIXES

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Name of a folder in lower case -> its split."""

_EXAMPLES = 3


class ClassFolder(NamedTuple):
    """A folder that is a class.

    split: "train", "validation" or "test", by the folders of the user; "" if they have no splits.
    name: name of the class: the folders on its path, joined by /.
    """

    split: str
    name: str


class ClassFolders:
    """The class folders among all folders.

    Args:
        paths: paths of all files, relative to one root.
        by_folders: True if there must be folders of splits; False to ignore such folders and join
            their classes; None to use them if there are some.

    Raises:
        InconsistentDataError: `by_folders` is True but there are no folders of splits; or a class
            is in two splits.
    """

    def __init__(self, paths: Iterable[PurePosixPath], by_folders: bool | None = None) -> None:
        with_pictures = {path.parent for path in paths if may_be_picture(path)}
        self.root = _around(with_pictures)
        tops = _class_folders(with_pictures, self.root)
        splits = self._splits(tops)
        if by_folders and not splits:
            raise InconsistentDataError(
                f"{self.root} has no folder train with folders of classes in it: make the folders "
                "train, validation and test, or set class_split=seed"
            )
        self._classes: dict[PurePosixPath, ClassFolder] = {}
        for folder in tops:
            first, *below = folder.relative_to(self.root).parts
            if not splits:
                self._classes[folder] = ClassFolder("", "/".join((first, *below)))
            elif first in splits:
                split = "" if by_folders is False else splits[first]
                self._classes[folder] = ClassFolder(split, "/".join(below))
        self._check()

    def __getitem__(self, path: PurePosixPath) -> ClassFolder | None:
        """Returns the class of a file; None if it is not in a class folder."""
        for folder in path.parents:
            if folder in self._classes:
                return self._classes[folder]
        return None

    def _splits(self, tops: set[PurePosixPath]) -> dict[str, str]:
        """Returns {folder in the root: split} for folders that are splits; {} without train."""
        parts = [folder.relative_to(self.root).parts for folder in tops]
        named = {each[0] for each in parts if len(each) > 1}
        splits = {name: SPLIT_FOLDERS[name.lower()] for name in named if _is_split(name)}
        return splits if "train" in splits.values() else {}

    def _check(self) -> None:
        by_name: dict[str, set[str]] = {}
        for each in self._classes.values():
            by_name.setdefault(each.name, set()).add(each.split)
        shared = sorted(name for name, splits in by_name.items() if len(splits) > 1)
        if shared:
            more = ", ..." if len(shared) > _EXAMPLES else ""
            raise InconsistentDataError(
                f"{len(shared)} of {len(by_name)} classes are in several of the folders "
                f"{', '.join(sorted(set().union(*by_name.values())))} of {self.root} "
                f"({', '.join(shared[:_EXAMPLES])}{more}), but splits here must not share "
                "classes. Set class_split=seed, which joins the folders and splits the classes"
            )


def may_be_picture(path: PurePosixPath) -> bool:
    """Returns whether the name of a file has the ending of an image, or no ending."""
    return path.suffix.lower() in (*IMAGE_SUFFIXES, "")


def _is_split(name: str) -> bool:
    return name.lower() in SPLIT_FOLDERS


def _around(folders: set[PurePosixPath]) -> PurePosixPath:
    """Returns the lowest folder that contains all classes and is not a split."""
    common: tuple[str, ...] = ()
    below = [folder.parts for folder in folders if folder.parts]
    if len(below) == 1:
        below = [below[0][:-1]]
    for level in zip(*below, strict=False):
        if len(set(level)) > 1 or _is_split(level[0]):
            break
        common = (*common, level[0])
    return PurePosixPath(*common)


def _class_folders(folders: set[PurePosixPath], root: PurePosixPath) -> set[PurePosixPath]:
    """Returns the highest folders with pictures, without splits and without the root."""
    around = {above for folder in folders for above in folder.parents}
    splits = {folder for folder in folders & around if _is_split(folder.name)}
    rest = folders - splits - {root, *root.parents}
    return {folder for folder in rest if not any(above in rest for above in folder.parents)}
