"""Data sets of labelled images that TensorFlow Datasets (TFDS) has prepared on this machine.

All splits of the data set are joined, and the classes are split by a seed, because the splits of
TFDS share their classes. Nothing is downloaded.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import tqdm

from tf_metalstm.data.sources.base import CorruptImageError, MissingDataError
from tf_metalstm.data.sources.builder import quiet_absl
from tf_metalstm.data.sources.class_splits import (
    ClassSplitOptions,
    check_fractions,
    split_by_seed,
)
from tf_metalstm.data.sources.contents import KeptDigests
from tf_metalstm.data.sources.file_source import FileOptions
from tf_metalstm.data.sources.pixels import color_as_stored, gray_as_stored
from tf_metalstm.data.sources.prepared import PreparedSource
from tf_metalstm.data.sources.staging import ImageIdentity, StagedSplits, Staging
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.files import given_path
from tf_metalstm.options import OptionError, option
from tf_metalstm.parts import Part

IMAGE_SIZE = 84


@dataclass(frozen=True)
class TfdsOptions(FileOptions, ClassSplitOptions):
    """Options of a data set of TFDS; data_dir is the folder of its data sets."""

    tfds_name: str | None = option(
        None,
        "Name of the data set, as in tfds.load, for example cifar10 or caltech101:3.0.1.",
        settled=True,
        alike=True,
    )


class TfdsImages(PreparedSource):
    """A data set of images with one label each.

    Args:
        tfds_name: name of the data set, as in `tfds.builder`.
        data_dir: folder of the data sets of TFDS; None for its default.
        prepared_dir: folder of the prepared images.
        image_size: height and width in pixels; images are resized without cropping.
        skip_corrupt: whether to leave out images that cannot be read, instead of raising an error.
        split_seed: seed of the split of the classes.
        split_fractions: fractions of the classes for train, validation and test.
    """

    part = Part("tfds", "A data set of TensorFlow Datasets", "", TfdsOptions)
    name = "tfds"
    description = "Images of a data set of TensorFlow Datasets, squeezed to a square."

    def __init__(
        self,
        tfds_name: str | None,
        data_dir: str | os.PathLike[str] | None = None,
        prepared_dir: str | os.PathLike[str] | None = None,
        *,
        image_size: int = IMAGE_SIZE,
        skip_corrupt: bool = False,
        split_seed: int = 0,
        split_fractions: tuple[float, ...] = (0.6, 0.2, 0.2),
    ) -> None:
        super().__init__(prepared_dir)
        check_fractions(split_fractions)
        self._tfds_name = tfds_name
        self._data_dir = given_path(data_dir, "--data_dir") if data_dir else None
        self._image_size, self._skip_corrupt = image_size, skip_corrupt
        self._split = (split_seed, tuple(split_fractions))

    @classmethod
    def from_options(cls, options: TfdsOptions) -> ImageTasks:
        source = cls(
            options.tfds_name,
            options.data_dir,
            options.prepared_dir,
            image_size=options.image_size or IMAGE_SIZE,
            skip_corrupt=options.skip_corrupt,
            split_seed=options.split_seed,
            split_fractions=options.split_fractions,
        )
        return ImageTasks.of(source, options)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height and width of the option image_size; one channel if the data are gray, else 3."""
        channels = self._data_set.info.features[self._keys[0]].shape[-1]
        return (self._image_size, self._image_size, 1 if channels == 1 else 3)

    def config_name(self) -> str:
        """Returns name and image size with a fingerprint of the files of the data set."""
        data_set = self._data_set
        files = sorted(path for path in Path(data_set.data_dir).iterdir() if path.is_file())
        digests = KeptDigests(self._prepared_dir / "known_files", Path(data_set.data_dir)).of(files)
        options = (self._image_size, self._skip_corrupt, *self._split)
        digest = hashlib.sha256(repr(options).encode())
        for file in files:
            digest.update(f"{file.name}:{digests[file]}\n".encode())
        return f"{data_set.name}-{self._image_size}px-{digest.hexdigest()[:10]}"

    def origin(self) -> str:
        """Returns a text with name, version and folder of the data set."""
        return f"{self._data_set.info.full_name} in {self._data_set.data_dir}"

    def stage(self) -> StagedSplits:
        """Returns all images of all splits."""
        staging = Staging(self.name, skip_corrupt=self._skip_corrupt, once_each=True)
        stored = gray_as_stored if self.image_shape[-1] == 1 else color_as_stored
        for identity, encoded in tqdm(self._images(), desc=f"Reading {self._tfds_name}"):
            try:
                origin = f"image {identity.file_name}"
                staging.add(identity, *stored(encoded, self._image_size, origin))
            except CorruptImageError as error:
                staging.skip(error)
        return staging.finish(lambda groups: split_by_seed(groups, *self._split))

    def _images(self) -> Iterator[tuple[ImageIdentity, bytes]]:
        """Yields the identity and the encoded bytes of each image, in stored order."""
        image, label = self._keys
        class_of = self._data_set.info.features[label].int2str
        for split in sorted(self._data_set.info.splits):
            with quiet_absl():
                stored = self._data_set.as_dataset(
                    split=split,
                    decoders={image: tfds.decode.SkipDecoding()},
                    read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
                )
            for number, example in enumerate(stored):
                identity = ImageIdentity("", class_of(int(example[label])), f"{split}/{number:07}")
                yield identity, example[image].numpy()

    @cached_property
    def _data_set(self) -> tfds.core.DatasetBuilder:
        if self._tfds_name is None:
            raise OptionError("tfds_name", "is needed by source=tfds: give the name of a data set.")
        try:
            with quiet_absl():
                builder = tfds.builder(self._tfds_name, data_dir=self._data_dir, try_gcs=False)
                is_prepared = builder.is_prepared()
        except (tfds.core.registered.DatasetNotFoundError, ValueError, tf.errors.OpError) as error:
            raise OptionError(
                "tfds_name",
                f"is {self._tfds_name!r}, which TensorFlow Datasets does not know and has not in "
                f"{self._data_dir or 'its folder'}: look at its list, or give another data_dir.",
            ) from error
        if not is_prepared:
            raise MissingDataError(
                f"tfds: {self._tfds_name} is not in {builder.data_dir}. With a network, download "
                f"it in Python: tfds.load({self._tfds_name!r}, data_dir={str(self._data_dir)!r}). "
                "Without one, copy its folder from another machine, and give the folder above it "
                "as data_dir"
            )
        return builder

    @cached_property
    def _keys(self) -> tuple[str, str]:
        """Names of the features with the image and the label."""
        features = self._data_set.info.features
        kinds = (tfds.features.Image, tfds.features.ClassLabel)
        named = features.items() if isinstance(features, tfds.features.FeaturesDict) else ()
        candidates = [[name for name, each in named if isinstance(each, kind)] for kind in kinds]
        supervised = self._data_set.info.supervised_keys or ()
        chosen = [
            next((n for n in names if n in supervised), names[0] if len(names) == 1 else None)
            for names in candidates
        ]
        if None in chosen:
            raise OptionError(
                "tfds_name",
                f"is {self._tfds_name!r}, which has no single image with a single label: choose a "
                "data set for image classification.",
            )
        return chosen[0], chosen[1]  # type: ignore[return-value] # neither is None
