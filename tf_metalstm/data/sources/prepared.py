"""Sources that are prepared once, as a TensorFlow Datasets data set, and then loaded.

    raw files --stage()--> StagedSplits --ImageClassesBuilder--> TFDS records --load()--> arrays

The prepared data set lies in `<prepared_dir>/<source>/<variant>-<fingerprint>/<version>`.
The fingerprint is that of names and contents of the raw files and of the options, so
that raw files which are added, replaced or corrected lead to a new preparation, and the
same files at another place to none. `what.txt` beside the versions says what is there.
TFDS writes into a folder called `incomplete.*` and renames it at the end: what an
interrupted preparation leaves behind is never taken for a data set.
"""

import abc
import contextlib
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
from tf_metalstm.data.sources.folders import given_folder
from tf_metalstm.data.sources.staging import StagedSplits
from tf_metalstm.failures import not_written, reason
from tf_metalstm.files import check_is_text, write_atomically

CACHE_VARIABLE = "TF_METALSTM_CACHE"
"""Environment variable that names the folder of the prepared data."""

# Images handed over at a time: enough to keep all cores decoding.
_LOAD_BATCH = 512


def default_prepared_dir() -> Path:
    """Where prepared data lie unless told otherwise.

    `$TF_METALSTM_CACHE`, else `$XDG_CACHE_HOME/tf_metalstm`, else `~/.cache/tf_metalstm`.
    """
    if os.environ.get(CACHE_VARIABLE):
        return given_folder(os.environ[CACHE_VARIABLE], CACHE_VARIABLE)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tf_metalstm"


@dataclass(frozen=True)
class PreparedOptions(ImageOptions, PreparedDirOptions):
    """Options of every source that is prepared once."""


class PreparedSource(Source):
    """A source whose images are prepared by TFDS; the subclass finds and reads them.

    Args:
        prepared_dir: where the prepared data set is kept; by default
            `default_prepared_dir()`.
    """

    description: str
    citation: str | None = None

    def __init__(self, prepared_dir: str | os.PathLike[str] | None = None) -> None:
        self._prepared_dir = (
            given_folder(prepared_dir, "--prepared_dir") if prepared_dir else default_prepared_dir()
        )
        self._prepared: ImageClassesBuilder | None = None

    @abc.abstractmethod
    def config_name(self) -> str:
        """`<variant>-<fingerprint>`; raises MissingDataError where nothing can be prepared."""

    @abc.abstractmethod
    def stage(self) -> StagedSplits:
        """Reads, checks and splits all raw images."""

    @abc.abstractmethod
    def origin(self) -> str:
        """Where the raw images are from, for `what.txt`."""

    def prepare(self) -> None:
        """Builds the TFDS data set; does nothing where it lies already."""
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
                f"{self.name}: what was prepared in {self._builder().data_dir} cannot be read "
                f"({reason(error)}): take that folder away, and it is made anew"
            ) from error
        sizes = np.fromiter(class_sizes.values(), np.int64)
        return ClassImages(images, sizes, tuple(class_sizes))

    def class_names(self, split: str) -> tuple[str, ...]:
        """Returns the names of the classes of a split, without reading an image."""
        return tuple(self._class_sizes(split))

    def channel_statistics(self) -> ChannelStatistics:
        """Returns what preparation wrote down of the training images."""
        metadata = self._metadata()
        return ChannelStatistics(
            np.array(metadata["channel_mean"]), np.array(metadata["channel_std"])
        )

    def fingerprint_of(self, split: str) -> str:
        """Returns what preparation wrote down of the split, without reading an image."""
        self._class_sizes(split)  # raises for a split that is not there
        return self._metadata()["fingerprints"][split]

    def counts(self, split: str) -> SplitCounts:
        """Returns how much a split holds, without reading an image."""
        sizes = self._class_sizes(split).values()
        return SplitCounts(len(sizes), sum(sizes), min(sizes))

    def describe(self, split: str | None = None) -> str:
        """Returns a line for each split, and what preparation had to leave out."""
        metadata = self._metadata()
        lines = []
        for each in (check_split(split),) if split else SPLITS:
            if each in metadata["class_sizes"]:
                counts = self.counts(each)
                images = f"{counts.num_images} images, at least {counts.smallest_class} a class"
                lines.append(f"{self.name}/{each}: {counts.num_classes} classes, {images}")
            else:
                lines.append(f"{self.name}/{each}: nothing found")
        if metadata["skipped"]:
            lines.append(f"{self.name}: {len(metadata['skipped'])} corrupt files left out")
        lines.extend(f"{self.name}: {line}" for line in metadata["left_out"])
        return "\n".join(lines)

    def _read(self, split: str) -> tf.data.Dataset:
        """Batches of images in stored order, uint8 [b, h, w, c]."""
        with quiet_absl():
            encoded = self._builder().as_dataset(
                split=split,
                decoders=tfds.decode.PartialDecoding(
                    {"image": True}, decoders={"image": tfds.decode.SkipDecoding()}
                ),
                # One file after the other: the order of the classes is that of the files.
                read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
            )
        return encoded.map(self._decoded, tf.data.AUTOTUNE).batch(_LOAD_BATCH).prefetch(2)

    def _decoded(self, example: dict[str, tf.Tensor]) -> tf.Tensor:
        """Pixels, uint8 [h, w, c], of a stored JPEG or PNG (the operation knows both).

        The faster transform, which TensorFlow prefers and TFDS uses, makes the red
        and blue of mini-ImageNet darker by one level on average. The accurate one
        gives exactly the pixels that Pillow gives, to whom the statistics and the
        clients of an exported model owe theirs.
        """
        channels = self.image_shape[-1]
        return tf.io.decode_jpeg(example["image"], channels, dct_method="INTEGER_ACCURATE")

    def _metadata(self) -> dict[str, Any]:
        return self._builder().info.metadata

    def _class_sizes(self, split: str) -> dict[str, int]:
        """Images of each stored class, in the order in which they are stored."""
        check_split(split)
        by_split = self._metadata()["class_sizes"]
        if split not in by_split:
            raise MissingDataError(
                f"{self.name} has no {split} images, only {', '.join(by_split)}: add the files of "
                "that split to the data folder; they will be prepared on the next start"
            )
        return by_split[split]

    def _builder(self) -> ImageClassesBuilder:
        """The builder of the data set, which is prepared first if need be."""
        if self._prepared is None:
            builder = self._make_builder()
            self._make_prepared_dir()
            try:
                with unseeded_random():
                    builder.download_and_prepare()
            except (OSError, RuntimeError) as error:
                # Two processes may prepare at once; the second cannot rename its
                # folder onto the first one's, and need not.
                builder = self._make_builder()
                with quiet_absl():
                    is_prepared = builder.is_prepared()
                if not is_prepared:
                    raise self._why_not_prepared(error) from error
            self._prepared = builder
            self.found(builder)
        return self._prepared

    def found(self, builder: ImageClassesBuilder) -> None:
        """Called once, when the prepared data set is there: says in `what.txt` what it is."""
        what = Path(builder.data_dir).parent / "what.txt"
        if not what.exists():
            self._write_what(what, builder)

    def _write_what(self, what: Path, builder: ImageClassesBuilder) -> None:
        metadata = builder.info.metadata
        lines = [
            f"{self.name}, prepared by tf_metalstm. Take the folder away, and it is made anew.",
            self.description,
            self.origin(),
            f"Images of {' x '.join(map(str, self.image_shape))}",
        ]
        for split, sizes in metadata["class_sizes"].items():
            of_split = f"{len(sizes)} classes, {sum(sizes.values())} images"
            lines.append(f"{split}: {of_split}, fingerprint {metadata['fingerprints'][split]}")
        lines.extend([*metadata["skipped"], *metadata["left_out"]])
        with contextlib.suppress(OSError):  # it helps a reader, nothing needs it
            write_atomically(what, "".join(f"{line}\n" for line in lines))

    def _why_not_prepared(self, error: Exception) -> Exception:
        """Returns what to say where preparation failed: of the prepared data, or as it was."""
        # TFDS makes a RuntimeError of what TensorFlow says when it cannot write.
        cause = error.__cause__ if isinstance(error, RuntimeError) else error
        file = getattr(cause, "filename", None)
        of_raw_file = file is not None and not Path(file).is_relative_to(self._prepared_dir)
        if cause is None or of_raw_file or not _is_of_the_system(cause):
            return error
        said = str(not_written(self._prepared_dir, cause)).rstrip(".")
        return OSError(
            f"{self.name}: {said}. Make room there, pass another prepared_dir or set "
            f"${CACHE_VARIABLE}"
        )

    def _make_prepared_dir(self) -> None:
        check_is_text(self._prepared_dir, "prepared_dir")
        try:
            self._prepared_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"{self.name}: the folder {self._prepared_dir} for prepared data cannot be made "
                f"({error}): pass another prepared_dir or set ${CACHE_VARIABLE}"
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
    """Whether it is what the operating system said, and not one of our own messages."""
    return isinstance(error, tf.errors.OpError) or getattr(error, "errno", None) is not None
