"""Sources that are prepared once, as a TensorFlow Datasets data set, and then loaded.

    raw files --stage()--> StagedSplits --ImageClassesBuilder--> TFDS records --load()--> arrays

The prepared data set lies in `<prepared_dir>/<source>/<variant>-<fingerprint>/<version>`.
The fingerprint is that of the raw files and options, so that raw files which are
added or replaced lead to a new preparation. TFDS writes into a folder called
`incomplete.*` and renames it at the end: what an interrupted preparation leaves
behind is never taken for a data set.
"""

import abc
import contextlib
import dataclasses
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from tf_metalstm.data.sources.base import (
    SPLITS,
    ChannelStatistics,
    ClassImages,
    MissingDataError,
    Source,
    SplitCounts,
    check_split,
)
from tf_metalstm.data.sources.staging import StagedSplits

CACHE_VARIABLE = "TF_METALSTM_CACHE"
"""Environment variable that names the folder of the prepared data."""

_LOAD_BATCH = 512


def default_prepared_dir() -> Path:
    """Where prepared data lie unless told otherwise.

    `$TF_METALSTM_CACHE`, else `$XDG_CACHE_HOME/tf_metalstm`, else `~/.cache/tf_metalstm`.
    """
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tf_metalstm"


@dataclasses.dataclass(eq=False, kw_only=True)
class ImageClassesConfig(tfds.core.BuilderConfig):
    """What `ImageClassesBuilder` needs to know about its source.

    Attributes:
      source_name: the name of the data set.
      image_shape: (h, w, c).
      citation: BibTeX of the origin of the images, or None.
      stage: reads the raw images; called only when there is something to prepare.
    """

    source_name: str
    image_shape: tuple[int, int, int]
    citation: str | None
    stage: Callable[[], StagedSplits]


class ImageClassesBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS data set of images with class names, its splits split by class.

    One builder serves all sources. It stays out of the global registry of TFDS,
    where a name such as "omniglot" already means another data set.
    """

    VERSION = tfds.core.Version("1.0.0")

    # TFDS would look beside the code for the checksums of downloads. There are
    # none, and the search needs importlib_resources, which TFDS uses but does
    # not declare as a dependency.
    code_path = None

    def __init__(self, config: ImageClassesConfig, data_dir: Path):
        self.name = config.source_name
        with _quiet_absl():
            super().__init__(config=config, data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return tfds.core.DatasetInfo(
            builder=self,
            description=config.description,
            citation=config.citation,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=config.image_shape),
                    "class_name": tfds.features.Text(),
                    "file_name": tfds.features.Text(),
                }
            ),
            # Examples are stored grouped by class, so that loading is one read
            # from front to back; shuffling is the business of the episodes.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        staged = self.builder_config.stage()
        self.info.metadata.update(
            class_sizes={
                split: {name: len(files) for name, files in classes.items()}
                for split, classes in staged.images.items()
            },
            channel_mean=staged.statistics.mean.tolist(),
            channel_std=staged.statistics.std.tolist(),
            skipped=list(staged.skipped),
        )
        return {
            split: self._generate_examples(classes) for split, classes in staged.images.items()
        }

    def _generate_examples(self, classes):
        row = 0
        for class_name, files in classes.items():
            for file_name in sorted(files):
                image = io.BytesIO(files[file_name])
                yield row, {"image": image, "class_name": class_name, "file_name": file_name}
                row += 1

    def _log_download_bytes(self) -> None:
        """Replaces a message about a download that does not take place."""

    def _log_download_done(self) -> None:
        """Replaces a message about a download that did not take place."""


class PreparedSource(Source):
    """A source whose images are prepared by TFDS; the subclass finds and reads them."""

    description: str
    citation: str | None = None

    def __init__(self, prepared_dir: str | os.PathLike | None = None):
        """
        Args:
          prepared_dir: where the prepared data set is kept; by default
            `default_prepared_dir()`.
        """
        chosen = prepared_dir or default_prepared_dir()
        self._prepared_dir = Path(chosen).expanduser()
        self._builder: ImageClassesBuilder | None = None

    @abc.abstractmethod
    def config_name(self) -> str:
        """`<variant>-<fingerprint>`; raises MissingDataError where nothing can be prepared."""

    @abc.abstractmethod
    def stage(self) -> StagedSplits:
        """Reads, checks and splits all raw images."""

    def prepare(self) -> None:
        if self._builder is not None:
            return
        builder = self._make_builder()
        try:
            builder.download_and_prepare()
        except OSError:
            # Two processes may prepare at once; the second cannot rename its
            # folder onto the first one's, and needs not.
            builder = self._make_builder()
            if not builder.is_prepared():
                raise
        self._builder = builder

    def load(self, split: str) -> ClassImages:
        class_sizes = self._class_sizes(split)
        dataset = self._builder.as_dataset(
            split=split,
            shuffle_files=False,
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        )
        dataset = dataset.map(lambda example: example["image"]).batch(_LOAD_BATCH).prefetch(2)
        images = np.empty((sum(class_sizes.values()), *self.image_shape), np.uint8)
        row = 0
        for batch in tfds.as_numpy(dataset):
            images[row : row + len(batch)] = batch
            row += len(batch)
        sizes = np.fromiter(class_sizes.values(), np.int64)
        return ClassImages(images, sizes, tuple(class_sizes))

    def channel_statistics(self) -> ChannelStatistics:
        metadata = self._metadata()
        return ChannelStatistics(
            np.array(metadata["channel_mean"]), np.array(metadata["channel_std"])
        )

    def counts(self, split: str) -> SplitCounts:
        sizes = self._class_sizes(split).values()
        return SplitCounts(len(sizes), sum(sizes), min(sizes))

    def describe(self, split: str | None = None) -> str:
        metadata = self._metadata()
        lines = []
        for each in (split,) if split else SPLITS:
            if check_split(each) in metadata["class_sizes"]:
                counts = self.counts(each)
                images = f"{counts.num_images} images, at least {counts.smallest_class} a class"
                lines.append(f"{self.name}/{each}: {counts.num_classes} classes, {images}")
            else:
                lines.append(f"{self.name}/{each}: nothing found")
        if metadata["skipped"]:
            lines.append(f"{self.name}: {len(metadata['skipped'])} corrupt files left out")
        return "\n".join(lines)

    def _metadata(self) -> dict:
        self.prepare()
        return self._builder.info.metadata

    def _class_sizes(self, split: str) -> dict[str, int]:
        """Images of each stored class, in the order in which they are stored."""
        check_split(split)
        by_split = self._metadata()["class_sizes"]
        if split not in by_split:
            raise MissingDataError(
                f"{self.name} has no {split} images; found: {', '.join(by_split)}. Add the "
                f"files of that split to the data folder; they will be prepared on the next start"
            )
        return by_split[split]

    def _make_builder(self) -> ImageClassesBuilder:
        config = ImageClassesConfig(
            name=self.config_name(),
            description=self.description,
            source_name=self.name,
            image_shape=self.image_shape,
            citation=self.citation,
            stage=self.stage,
        )
        return ImageClassesBuilder(config, self._prepared_dir)


@contextlib.contextmanager
def _quiet_absl() -> Iterator[None]:
    """Hides the warning of TFDS that a configuration is not one of a published list."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
