"""Sources that are prepared once, as a TensorFlow Datasets (TFDS) data set, and then loaded.

    raw files --stage()--> StagedSplits --ImageClassesBuilder--> TFDS records --load()--> arrays

The prepared data set is in `<prepared_dir>/<source>/<variant>-<fingerprint>/<version>`. The
fingerprint covers the names and contents of the raw files and the options. If raw files are added
or changed, there is a new preparation. If the same files are moved, there is none. `what.txt` in
the folder above describes the data set. TFDS writes into a folder `incomplete.*` and renames it at
the end, so an interrupted preparation is never mistaken for a data set.
"""

import abc
import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tf_metalstm.data.options import ImageOptions, PreparedDirOptions
from tf_metalstm.data.sources.base import (
    SPLITS,
    ChannelStatistics,
    ClassImages,
    MissingDataError,
    Source,
    SplitCounts,
    check_split,
)
from tf_metalstm.data.sources.builder import (
    ImageClassesBuilder,
    ImageClassesConfig,
    quiet_absl,
    unseeded_random,
)
from tf_metalstm.data.sources.staging import StagedSplits
from tf_metalstm.failures import not_written, reason
from tf_metalstm.files import check_is_text, given_path, write_atomically
from tf_metalstm.graphs import unconverted

CACHE_VARIABLE = "TF_METALSTM_CACHE"
"""Environment variable that names the folder of the prepared data."""

# Number of images in a batch; it is large enough to keep all cores busy.
_LOAD_BATCH = 512


def default_prepared_dir() -> Path:
    """Returns the default folder of prepared data.

    It is `$TF_METALSTM_CACHE`, else `$XDG_CACHE_HOME/tf_metalstm`, else `~/.cache/tf_metalstm`.
    """
    if os.environ.get(CACHE_VARIABLE):
        return given_path(os.environ[CACHE_VARIABLE], CACHE_VARIABLE)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tf_metalstm"


@dataclass(frozen=True)
class PreparedOptions(ImageOptions, PreparedDirOptions):
    """Options of every source that is prepared once."""


class PreparedSource(Source):
    """A source whose images are prepared with TFDS; subclasses read the raw images.

    Args:
        prepared_dir: folder of the prepared data sets; None for `default_prepared_dir()`.
    """

    description: str
    citation: str | None = None

    def __init__(self, prepared_dir: str | os.PathLike[str] | None = None) -> None:
        self._prepared_dir = (
            given_path(prepared_dir, "--prepared_dir") if prepared_dir else default_prepared_dir()
        )
        self._prepared: ImageClassesBuilder | None = None

    @abc.abstractmethod
    def config_name(self) -> str:
        """Returns `<variant>-<fingerprint>`; raises MissingDataError if there are no raw files."""

    @abc.abstractmethod
    def stage(self) -> StagedSplits:
        """Returns all raw images, checked and split."""

    @abc.abstractmethod
    def origin(self) -> str:
        """Returns a text with the origin of the raw images, for `what.txt`."""

    def prepare(self) -> None:
        """Builds the TFDS data set; does nothing if it exists already."""
        self._builder()

    def load(self, split: str) -> ClassImages:
        """Returns the images of a split, read from the TFDS data set."""
        class_sizes = self._class_sizes(split)
        images = np.empty((sum(class_sizes.values()), *self.image_shape), np.uint8)
        row = 0
        try:
            for batch in tfds.as_numpy(self._read(split)):
                images[row : row + len(batch)] = batch
                row += len(batch)
        except tf.errors.OpError as error:
            raise OSError(
                f"{self.name}: the prepared data in {self._builder().data_dir} cannot be read "
                f"({reason(error)}): delete that folder, then the data are prepared again"
            ) from error
        sizes = np.fromiter(class_sizes.values(), np.int64)
        return ClassImages(images, sizes, tuple(class_sizes))

    def class_names(self, split: str) -> tuple[str, ...]:
        """Returns the names of the classes of a split, without reading an image."""
        return tuple(self._class_sizes(split))

    def channel_statistics(self) -> ChannelStatistics:
        """Returns mean and deviation of the training images, from the metadata."""
        metadata = self._metadata()
        return ChannelStatistics(
            np.array(metadata["channel_mean"]), np.array(metadata["channel_std"])
        )

    def fingerprint_of(self, split: str) -> str:
        """Returns the fingerprint of a split from the metadata, without reading an image."""
        self._class_sizes(split)  # raises if the split does not exist
        return self._metadata()["fingerprints"][split]

    def counts(self, split: str) -> SplitCounts:
        """Returns the numbers of classes and images of a split, without reading an image."""
        sizes = self._class_sizes(split).values()
        return SplitCounts(len(sizes), sum(sizes), min(sizes))

    def describe(self, split: str | None = None) -> str:
        """Returns a line for each split, and lines about the files that were left out."""
        metadata = self._metadata()
        lines = []
        for each in (check_split(split),) if split else SPLITS:
            if each in metadata["class_sizes"]:
                counts = self.counts(each)
                images = f"{counts.num_images} images, at least {counts.smallest_class} a class"
                lines.append(f"{self.name}/{each}: {counts.num_classes} classes, {images}")
            else:
                lines.append(f"{self.name}/{each}: no images")
        if metadata["skipped"]:
            lines.append(f"{self.name}: {len(metadata['skipped'])} corrupt files left out")
        lines.extend(f"{self.name}: {line}" for line in metadata["left_out"])
        return "\n".join(lines)

    def _read(self, split: str) -> tf.data.Dataset:
        """Returns batches of images in stored order, uint8 [b, h, w, c]."""
        with quiet_absl():
            encoded = self._builder().as_dataset(
                split=split,
                decoders=tfds.decode.PartialDecoding(
                    {"image": True}, decoders={"image": tfds.decode.SkipDecoding()}
                ),
                # Reading one file after the other keeps the order of the classes.
                read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
            )
        images = encoded.map(unconverted(self._decoded), tf.data.AUTOTUNE)
        return images.batch(_LOAD_BATCH).prefetch(2)

    def _decoded(self, example: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns pixels, uint8 [h, w, c], of a stored JPEG or PNG (the operation reads both).

        TensorFlow's default, which TFDS uses, is a faster transform that makes the red and
        blue of mini-ImageNet darker by one level on average. The accurate transform gives
        exactly the pixels of Pillow, which the statistics and the clients of an exported
        model use.
        """
        channels = self.image_shape[-1]
        return tf.io.decode_jpeg(example["image"], channels, dct_method="INTEGER_ACCURATE")

    def _metadata(self) -> dict[str, Any]:
        return self._builder().info.metadata

    def _class_sizes(self, split: str) -> dict[str, int]:
        """Returns the number of images of each class, in stored order."""
        check_split(split)
        by_split = self._metadata()["class_sizes"]
        if split not in by_split:
            raise MissingDataError(
                f"{self.name} has no {split} images, only {', '.join(by_split)}: add the files of "
                "that split to the data folder; the next start prepares them"
            )
        return by_split[split]

    def _builder(self) -> ImageClassesBuilder:
        """Returns the builder of the data set; prepares the data set first if necessary."""
        if self._prepared is None:
            builder = self._make_builder()
            self._make_prepared_dir()
            try:
                with unseeded_random():
                    builder.download_and_prepare()
            except (OSError, RuntimeError) as error:
                # Two processes may prepare at the same time. The second one cannot
                # rename its folder, but then the data set exists already.
                builder = self._make_builder()
                with quiet_absl():
                    is_prepared = builder.is_prepared()
                if not is_prepared:
                    raise self._why_not_prepared(error) from error
            self._prepared = builder
            self.after_preparation(builder)
        return self._prepared

    def after_preparation(self, builder: ImageClassesBuilder) -> None:
        """Writes `what.txt`; is called once, when the prepared data set exists."""
        what = Path(builder.data_dir).parent / "what.txt"
        if not what.exists():
            self._write_what(what, builder)

    def _write_what(self, what: Path, builder: ImageClassesBuilder) -> None:
        metadata = builder.info.metadata
        lines = [
            f"{self.name}, prepared by tf_metalstm. If you delete this folder, the next start "
            "prepares it again.",
            self.description,
            self.origin(),
            f"Images of {' x '.join(map(str, self.image_shape))}",
        ]
        for split, sizes in metadata["class_sizes"].items():
            of_split = f"{len(sizes)} classes, {sum(sizes.values())} images"
            lines.append(f"{split}: {of_split}, fingerprint {metadata['fingerprints'][split]}")
        lines.extend([*metadata["skipped"], *metadata["left_out"]])
        with contextlib.suppress(OSError):  # the file is only for people
            write_atomically(what, "".join(f"{line}\n" for line in lines))

    def _why_not_prepared(self, error: Exception) -> Exception:
        """Returns an error about the prepared data, or `error` if it has another cause."""
        # TFDS raises a RuntimeError if TensorFlow cannot write.
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        file = getattr(cause, "filename", None)
        if str(cause).startswith("Not enough disk space"):  # so says TFDS, without the place
            cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        of_raw_file = file is not None and not Path(file).is_relative_to(self._prepared_dir)
        if cause is None or of_raw_file or not _is_of_the_system(cause):
            return error
        said = str(not_written(self._prepared_dir, cause)).rstrip(".")
        return OSError(
            f"{self.name}: {said}. Free some space there, choose another prepared_dir or set "
            f"${CACHE_VARIABLE}"
        )

    def _make_prepared_dir(self) -> None:
        check_is_text(self._prepared_dir, "prepared_dir")
        try:
            self._prepared_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"{self.name}: the folder {self._prepared_dir} for prepared data cannot be created "
                f"({error}): choose another prepared_dir or set ${CACHE_VARIABLE}"
            ) from error

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


def _is_of_the_system(error: BaseException) -> bool:
    """Returns whether an error is from the operating system and not from this package."""
    return isinstance(error, tf.errors.OpError) or getattr(error, "errno", None) is not None
