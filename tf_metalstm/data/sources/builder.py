"""The TensorFlow Datasets (TFDS) builder that writes prepared images; all sources use it.

It does not use the network: it downloads nothing, and TFDS does not search its bucket for prepared
data sets.
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
    """The facts about a source that `ImageClassesBuilder` needs.

    Attributes:
        source_name: name of the data set.
        image_shape: (h, w, c).
        citation: BibTeX entry of the images, or None.
        stage: reads the raw images; is called only if the data set is not prepared yet.
    """

    source_name: str
    image_shape: tuple[int, int, int]
    citation: str | None
    stage: Callable[[], StagedSplits]


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing; TFDS would ask its bucket and leave an empty folder behind."""


class ImageClassesBuilder(
    tfds.core.GeneratorBasedBuilder,
    # The registry of TFDS has another "omniglot" already.
    skip_registration=True,  # type: ignore[call-arg] # mypy skips TFDS and does not know it
):
    """A TFDS data set of images with class names, split by class.

    Each example has an `image`, the `class_name` and a `file_name`. The metadata are:
    `class_sizes` (split -> class name -> number of images, in stored order), `channel_mean` and
    `channel_std` (of the training split, pixels in 0..255), `fingerprints` (split -> hash of its
    pixels and class names), `skipped` (the error of each corrupt file that was left out) and
    `left_out` (a line for each other reason why files were left out).

    Args:
        config: the facts about the source.
        data_dir: the folder of all prepared data sets.
    """

    VERSION = tfds.core.Version("2.0.0")

    # TFDS would search the folder of the code for checksums of downloads. There are
    # none, and the search needs importlib_resources, which TFDS uses but does not
    # declare as a dependency.
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
            # Examples are stored grouped by class, so loading reads the files from
            # front to back. Episodes do the shuffling.
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
        """Does nothing; TFDS would print a message about a download, but there is none."""

    def _log_download_done(self) -> None:
        """Does nothing; TFDS would print a message about a download, but there was none."""


@contextlib.contextmanager
def quiet_absl() -> Iterator[None]:
    """Hides two warnings of TFDS: about a custom configuration and about a deprecated name."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def unseeded_random() -> Iterator[None]:
    """A context with new random numbers; afterwards the generator has its former state.

    TFDS draws the name of its temporary folder from Python's generator. Two processes
    with the same seed would write into the same folder. And a run that prepares its data
    would continue with other random numbers than a run that does not.
    """
    before = random.getstate()
    random.seed()
    try:
        yield
    finally:
        random.setstate(before)
