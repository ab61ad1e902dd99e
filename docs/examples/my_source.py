"""A source of images: FOLDER/train, FOLDER/validation, FOLDER/test with one folder a class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_metalstm import ImageTasks, Part, option
from tf_metalstm.data.options import ImageOptions
from tf_metalstm.data.sources.base import ChannelStatistics, ClassImages, Source, SplitCounts
from tf_metalstm.data.sources.pixels import gray_pixels


@dataclass(frozen=True)
class FolderOptions(ImageOptions):
    picture_folder: str = option("pictures", "Folder with train, validation and test.")


class FolderSource(Source):
    """Gray pictures of 28 x 28 pixels; no class is in two splits."""

    part = Part("my_folders", "Pictures in folders", options=FolderOptions)
    name = "my_folders"
    image_shape = (28, 28, 1)

    def __init__(self, folder):
        self.folder, self.splits = Path(folder), {}

    @classmethod
    def from_options(cls, options):
        return ImageTasks.of(cls(options.picture_folder), options)

    def prepare(self):
        pass  # nothing is written to disk: the pictures are read when they are asked for

    def load(self, split):
        if split not in self.splits:
            folders = sorted((self.folder / split).iterdir())
            files = [sorted(folder.iterdir()) for folder in folders]
            read = [gray_pixels(f.read_bytes(), 28, str(f)) for each in files for f in each]
            sizes = np.array([len(each) for each in files], np.int64)
            self.splits[split] = ClassImages(np.stack(read), sizes, tuple(f.name for f in folders))
        return self.splits[split]

    def channel_statistics(self):
        pixels = self.load("train").images.reshape(-1, 1).astype(np.float64)
        return ChannelStatistics(pixels.mean(0), pixels.std(0))

    def counts(self, split):
        sizes = self.load(split).class_sizes
        return SplitCounts(len(sizes), int(sizes.sum()), int(sizes.min()))

    def describe(self, split=None):
        return f"pictures in {self.folder}: {self.counts(split or 'train')}"


PARTS = (FolderSource,)
