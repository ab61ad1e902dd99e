"""The TensorFlow Datasets builder that writes prepared images, one for all sources.

It makes no use of the network: nothing is downloaded, and TFDS is kept from looking for prepared
data sets in its bucket.
"""

import contextlib
import dataclasses
import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from tf_metalstm.data.sources.staging import StagedSplits


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


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Asks no bucket, and leaves no folder behind where TFDS makes one for the answer."""


class ImageClassesBuilder(
    tfds.core.GeneratorBasedBuilder,
    # The registry of TFDS has another "omniglot" already.
    skip_registration=True,  # type: ignore[call-arg] # mypy skips TFDS and does not know it
):
    """A TFDS data set of images with class names, its splits split by class.

    Each example has an `image`, the `class_name` and a `file_name`. The metadata
    have `class_sizes` (split -> class name -> images, in stored order),
    `channel_mean` and `channel_std` (of the training split, pixels in 0..255),
    `fingerprints` (split -> hash of its pixels and class names), `skipped` (what
    was wrong with each corrupt file that was left out) and `left_out` (a line for each
    other reason why files were).

    Args:
        config: the source.
        data_dir: the folder of all prepared data sets.
    """

    VERSION = tfds.core.Version("2.0.0")

    # TFDS would look beside the code for the checksums of downloads. There are
    # none, and the search needs importlib_resources, which TFDS uses but does
    # not declare as a dependency.
    code_path = None

    def __init__(self, config: ImageClassesConfig, data_dir: Path) -> None:
        self.name = config.source_name
        with quiet_absl():
            super().__init__(config=config, data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return _LocalInfo(
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

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # nothing is downloaded
        staged = self.builder_config.stage()
        self.info.metadata.update(
            class_sizes={
                split: {name: len(files) for name, files in classes.items()}
                for split, classes in staged.images.items()
            },
            channel_mean=staged.statistics.mean.tolist(),
            channel_std=staged.statistics.std.tolist(),
            fingerprints=staged.fingerprints,
            skipped=list(staged.skipped),
            left_out=list(staged.left_out),
        )
        return {split: self._generate_examples(classes) for split, classes in staged.images.items()}

    def _generate_examples(
        self, classes: dict[str, dict[str, bytes]]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        names = [(name, file) for name, files in classes.items() for file in sorted(files)]
        for row, (class_name, file_name) in enumerate(names):
            # A file object is stored as it is, without another compression.
            image = io.BytesIO(classes[class_name][file_name])
            # Names of files may be no text.
            texts = {"class_name": os.fsencode(class_name), "file_name": os.fsencode(file_name)}
            yield row, {"image": image, **texts}

    def _log_download_bytes(self) -> None:
        """Replaces a message about a download that does not take place."""

    def _log_download_done(self) -> None:
        """Replaces a message about a download that did not take place."""


@contextlib.contextmanager
def quiet_absl() -> Iterator[None]:
    """Hides warnings of TFDS about itself: a configuration of our own, a deprecated name."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def unseeded_random() -> Iterator[None]:
    """Fresh random numbers inside, and outside the same as if nothing had been drawn.

    TFDS draws the name of its unfinished folder from Python's generator. Two
    processes with the same seed would write into one folder, and a run that has to
    prepare its data would go on with other random numbers than one that has not.
    """
    before = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(before)
