"""Where episodes come from, seen from above: images of a source, or anything else.

Commands ask `Tasks` for the episodes of a split and need not know what is in them.
"""

from __future__ import annotations

import abc
import functools
import hashlib
from collections.abc import Sequence

from tf_metalstm.data.episodes import Episodes, EpisodeSampler, ImageEpisodes
from tf_metalstm.data.joint import JointBatches
from tf_metalstm.data.preprocessing import Augmentation, Normalization, make_normalization
from tf_metalstm.data.sources.base import SPLITS, MissingDataError, Source
from tf_metalstm.episode import EpisodeSpec


class Tasks(abc.ABC):
    """A distribution of episodes, in three splits.

    Attributes:
        name: of the source.
        spec: how large an episode is.
        objective: name of what an episode asks for, as in `tf_metalstm.objectives`.
    """

    name: str
    spec: EpisodeSpec
    objective: str

    @property
    @abc.abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (h, w, c) of images."""

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """How many outputs a learner needs."""

    @abc.abstractmethod
    def episodes(self, split: str, seed: int, training: bool = False) -> Episodes:
        """Returns the episodes of a split.

        Args:
            split: of the classes.
            seed: of the list.
            training: for meta-training: with augmentation, its own way to draw classes and random
                numbers that no list has.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """Returns what there is, in a few lines."""

    def data_fingerprint(self) -> str:
        """Returns sixteen hexadecimal digits: equal ones mean that episodes are of the same data.

        Here of what `describe` says, which is all there is to know of a formula.
        """
        return hashlib.sha256(self.describe().encode()).hexdigest()[:16]


class ImageTasks(Tasks):
    """Classification of images.

    Args:
        source: of images; nothing is read before episodes are asked for.
        spec: ways, shots and queries.
        normalization: "standard" or "unit".
        augmentation: names of augmentations, in training.
        class_sampling: how the classes of training episodes are drawn. A fixed list of episodes
            is drawn independently.
    """

    objective = "classification"

    def __init__(
        self,
        source: Source,
        spec: EpisodeSpec,
        normalization: str = "standard",
        augmentation: Sequence[str] = (),
        class_sampling: str = "independent",
    ):
        self.name = source.name
        self.source = source
        self.spec = spec
        self._normalization = normalization
        self._augmentation = Augmentation(augmentation) if augmentation else None
        self._class_sampling = class_sampling

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(h, w, c) of every image."""
        return self.source.image_shape

    @property
    def num_outputs(self) -> int:
        """N."""
        return self.spec.num_way

    @functools.cached_property
    def normalization(self) -> Normalization:
        """Of pixels; "standard" prepares the source."""
        return make_normalization(self._normalization, self.source)

    def sampler(self, split: str, seed: int, training: bool = False) -> EpisodeSampler:
        """Returns which images make up the episodes of a split; reads its images."""
        return EpisodeSampler(
            self.source.load(split),
            split,
            self.spec,
            seed=seed,
            class_sampling=self._class_sampling if training else "independent",
            source_name=self.name,
            training=training,
        )

    def episodes(self, split: str, seed: int, training: bool = False) -> ImageEpisodes:
        """Returns the episodes of a split; reads its images."""
        augmentation = self._augmentation if training else None
        return ImageEpisodes(self.sampler(split, seed, training), self.normalization, augmentation)

    def data_fingerprint(self) -> str:
        """Returns a hash of the pixels and class names of all splits; prepares the source.

        Two of them are equal where the data are, wherever the raw files lie.
        """
        digest = hashlib.sha256()
        for split in SPLITS:
            try:
                found = self.source.fingerprint_of(split)
            except MissingDataError:  # a copy may lack a split
                found = "nothing"
            digest.update(f"{split}: {found}\n".encode())
        return digest.hexdigest()[:16]

    @property
    def num_training_classes(self) -> int:
        """Classes of the training split; reads its images."""
        return len(self.source.load("train").class_names)

    def joint_batches(self, batch_size: int, seed: int) -> JointBatches:
        """Returns batches of all training classes together, of `batch_size` images each."""
        classes = self.source.load("train")
        return JointBatches(classes, batch_size, self.normalization, self._augmentation, seed)

    def describe(self) -> str:
        """Returns classes and images of each split."""
        return self.source.describe()
