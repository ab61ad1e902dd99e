"""mini-ImageNet: 100 classes of ImageNet, 600 images each, 84 x 84 pixels.

The classes and their split, 64 / 16 / 20, are those of Ravi and Larochelle (2017),
"Optimization as a model for few-shot learning", ICLR. ImageNet allows
non-commercial research and education only.

There are two layouts. Both can be read from folders and from archives:

    <split>/<wnid>/<file>                          split: train, val (or validation), test
    images/<file> and train.csv, val.csv, test.csv (columns filename, label)

All images are used. A copy may have fewer images of a class; `describe` shows the
numbers. If the same image exists twice, it counts once.
"""

import csv
import io
import os
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from tf_metalstm.data.sources.base import InconsistentDataError, MissingDataError
from tf_metalstm.data.sources.file_source import FileOptions, FileSource
from tf_metalstm.data.sources.image_lists import text_of
from tf_metalstm.data.sources.pixels import color_as_stored
from tf_metalstm.data.sources.raw_files import is_archive
from tf_metalstm.data.sources.staging import ImageIdentity
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.parts import Part

IMAGE_SIZE = 84

_SPLIT_OF_FOLDER = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
_CSV_FILES = {"train.csv": "train", "val.csv": "validation", "test.csv": "test"}
_FLAT_FOLDER = "images"


class MiniImagenet(FileSource):
    """mini-ImageNet as color images.

    Args:
        data_dir: folder with the images in one of the layouts above.
        prepared_dir: folder of the prepared data sets.
        image_size: height and width in pixels.
        skip_corrupt: whether to leave out corrupt files instead of raising an error.
    """

    part = Part("mini_imagenet", "mini-ImageNet", "Ravi & Larochelle, ICLR 2017", FileOptions)
    name = "mini_imagenet"
    description = (
        "100 classes of ImageNet with the split of the classes by Ravi and Larochelle, "
        "whole pictures squeezed to a square."
    )
    citation = """@inproceedings{ravi2017optimization,
      title={Optimization as a Model for Few-Shot Learning},
      author={Ravi, Sachin and Larochelle, Hugo},
      booktitle={International Conference on Learning Representations}, year={2017}}"""
    places = "<split>/<wnid>/<file>, and in no list"
    layout = (
        "It must hold the images as <split>/<wnid>/<file>.jpg with the splits train, val and "
        "test, in folders or in archives (.tar.xz, .tar.gz, .tar, .zip; any number of them), or "
        "a folder images and the files train.csv, val.csv and test.csv (columns filename, "
        "label). The CSV files are in the repository twitter-research/meta-learning-lstm on "
        "GitHub. The images are from ImageNet (image-net.org), which needs an application"
    )

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        prepared_dir: str | os.PathLike[str] | None = None,
        *,
        image_size: int = IMAGE_SIZE,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(data_dir, prepared_dir, image_size=image_size, skip_corrupt=skip_corrupt)

    @classmethod
    def from_options(cls, options: FileOptions) -> ImageTasks:
        source = cls(
            options.data_dir,
            options.prepared_dir,
            image_size=options.image_size or IMAGE_SIZE,
            skip_corrupt=options.skip_corrupt,
        )
        return ImageTasks.of(source, options)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height and width of the option image_size, three channels."""
        return (self._image_size, self._image_size, 3)

    def config_name(self) -> str:
        """Returns the image size with the fingerprint of the raw files."""
        return f"{self._image_size}px-{self.fingerprint()}"

    def locations(self, data_dir: Path) -> list[Path]:
        """Returns the archives and folders of the splits, or the folder images."""
        archives = [path for path in sorted(data_dir.iterdir()) if is_archive(path)]
        folders = [data_dir / name for name in (*_SPLIT_OF_FOLDER, _FLAT_FOLDER)]
        present = archives + [folder for folder in folders if folder.is_dir()]
        if not present:
            raise MissingDataError(
                f"mini_imagenet: {data_dir} has no archive and none of the folders "
                f"{', '.join(folder.name for folder in folders)}. {self.layout}"
            )
        return present

    def index_files(self, data_dir: Path) -> list[Path]:
        """Returns the CSV files of the flat layout that exist."""
        return [data_dir / name for name in _CSV_FILES if (data_dir / name).is_file()]

    def identify(self, path: PurePosixPath) -> ImageIdentity | None:
        """Returns class and split of a file, from its folders or from the CSV files."""
        if len(path.parts) >= 3 and path.parts[-3] in _SPLIT_OF_FOLDER:
            folder, wnid, file_name = path.parts[-3:]
            return ImageIdentity(_SPLIT_OF_FOLDER[folder], wnid, file_name)
        if path.name in self._flat_index:
            split, wnid = self._flat_index[path.name]
            return ImageIdentity(split, wnid, path.name)
        return None

    def decode(self, encoded: bytes, origin: str) -> tuple[np.ndarray, bytes]:
        """Returns the resized color pixels, as `load` will return them, and the bytes to store."""
        return color_as_stored(encoded, self._image_size, origin)

    def assign_splits(self, groups: dict[str, str]) -> dict[str, str]:
        """Returns the groups, because the group of a class is its split."""
        return groups

    @cached_property
    def _flat_index(self) -> dict[str, tuple[str, str]]:
        """{file name: (split, wnid)} from the CSV files; empty if there are none."""
        index: dict[str, tuple[str, str]] = {}
        for path in self.index_files(self.data_dir()):
            with io.StringIO(text_of(path, self.name), newline="") as opened:
                rows = csv.DictReader(opened)
                if not {"filename", "label"} <= set(rows.fieldnames or ()):
                    raise InconsistentDataError(
                        f"mini_imagenet: {path} needs the columns filename and label, separated by "
                        f"a comma; its first line is {','.join(rows.fieldnames or ())[:80]!r}"
                    )
                for row in rows:
                    entry = (_CSV_FILES[path.name], row["label"])
                    if index.setdefault(row["filename"], entry) != entry:
                        raise InconsistentDataError(
                            f"mini_imagenet: {path} puts {row['filename']} into {'/'.join(entry)}, "
                            f"but another line has {'/'.join(index[row['filename']])}: "
                            "keep one of the two lines"
                        )
        return index
