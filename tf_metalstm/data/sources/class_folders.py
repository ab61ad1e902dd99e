"""Which folder is a class: from the paths of files alone, whatever the folders are called.

    cat/1.jpg, dog/1.jpg                     classes cat and dog
    animals/cat/1.jpg, tools/hammer/1.jpg    classes animals/cat and tools/hammer
    cat/1.jpg, cat/garden/2.jpg              class cat
    all/train/cat/1.jpg, all/test/dog/1.jpg  class cat of train, class dog of test

A folder that has pictures in it is a class, with all that lies below it. A folder without pictures
of its own is looked into. Folders around all of them, as archives have them, do not count. Folders
called train, validation (val, valid, dev) and test on the highest level that counts are splits,
where folders with pictures lie in them.
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
"""Names of folders in lower case -> the split that they mean."""

_EXAMPLES = 3


class ClassFolder(NamedTuple):
    """A folder that is a class.

    split: "train", "validation" or "test" as the user's folders say; "" where they say none.
    name: of the class, the folders to it with / between.
    """

    split: str
    name: str


class ClassFolders:
    """The class folders among all folders.

    Args:
        paths: of all files, relative to one root.
        by_folders: True for splits by folders of their names, which must be there; False to put
            such folders together; None for splits by folders where there are some.

    Raises:
        InconsistentDataError: splits by folders were asked for and none are there; or a class is
            in two of them.
    """

    def __init__(self, paths: Iterable[PurePosixPath], by_folders: bool | None = None) -> None:
        with_pictures = {path.parent for path in paths if may_be_picture(path)}
        self.root = _around(with_pictures)
        tops = _class_folders(with_pictures, self.root)
        splits = self._splits(tops)
        if by_folders and not splits:
            raise InconsistentDataError(
                f"no folder called train, with folders of classes in it, is in {self.root}: make "
                "one, and others called validation and test, or give class_split=seed"
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
        """Returns the class of a file; None for one in no class folder."""
        for folder in path.parents:
            if folder in self._classes:
                return self._classes[folder]
        return None

    def _splits(self, tops: set[PurePosixPath]) -> dict[str, str]:
        """{name of a folder of the root: split} for folders that are splits; {} without train."""
        parts = [folder.relative_to(self.root).parts for folder in tops]
        named = {each[0] for each in parts if len(each) > 1}
        splits = {name: SPLIT_FOLDERS[name.lower()] for name in named if _is_split(name)}
        return splits if "train" in splits.values() else {}

    def _check(self) -> None:
        by_name: dict[str, set[str]] = {}
        for found in self._classes.values():
            by_name.setdefault(found.name, set()).add(found.split)
        shared = sorted(name for name, splits in by_name.items() if len(splits) > 1)
        if shared:
            more = ", ..." if len(shared) > _EXAMPLES else ""
            raise InconsistentDataError(
                f"{len(shared)} of {len(by_name)} classes are in several of the folders "
                f"{', '.join(sorted(set().union(*by_name.values())))} of {self.root} "
                f"({', '.join(shared[:_EXAMPLES])}{more}): that is a split of the images, and "
                "splits here must not share classes. Give class_split=seed, which puts the "
                "folders together and splits the classes"
            )


def may_be_picture(path: PurePosixPath) -> bool:
    """Whether a name is that of an image file, or says nothing of what it is."""
    return path.suffix.lower() in (*IMAGE_SUFFIXES, "")


def _is_split(name: str) -> bool:
    return name.lower() in SPLIT_FOLDERS


def _around(folders: set[PurePosixPath]) -> PurePosixPath:
    """The lowest folder around all classes that is no split."""
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
    """The highest folders with pictures in them, but for those around others and for splits."""
    around = {above for folder in folders for above in folder.parents}
    splits = {folder for folder in folders & around if _is_split(folder.name)}
    found = folders - splits - {root, *root.parents}
    return {folder for folder in found if not any(above in found for above in folder.parents)}
