"""Tasks: images of a source, functions, or optimization problems.

Commands ask `Tasks` for the tasks of a split by their number, and need not know their contents.
"""

from __future__ import annotations

import abc
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tf_metalstm.data.class_sizes import describe_small, large_enough
from tf_metalstm.data.episodes import Episodes, EpisodeSampler, ImageEpisodes
from tf_metalstm.data.joint import JointBatches
from tf_metalstm.data.options import ImageOptions
from tf_metalstm.data.preprocessing import Augmentation, Normalization, make_normalization
from tf_metalstm.data.sources.base import SPLITS, MissingDataError, Source
from tf_metalstm.episode import EpisodeSpec, Tensor
from tf_metalstm.options import Options
from tf_metalstm.parameters import Blocks
from tf_metalstm.parts import Part

IMAGES, FUNCTIONS, PROBLEMS, STREAMS = "images", "functions", "problems", "streams"
"""Kinds of tasks: classes of images, functions of numbers, losses to minimize, and images that come
one after the other."""


class Tasks(abc.ABC):
    """A distribution of tasks, in three splits.

    Attributes:
        name: name of the source.
        kind: kind of the tasks, such as `IMAGES`; a method lists the kinds that it takes.
        objective: name of the objective, as in `tf_metalstm.objectives`.
        task: the size of a task in short, as in the headings of tables.
    """

    family: ClassVar[str] = "source"
    part: ClassVar[Part]
    name: str
    kind: str
    objective: str

    @classmethod
    def from_options(cls, options: Options) -> Tasks:
        """Returns the tasks with these options; reads no data yet."""
        raise NotImplementedError(f"{cls.__name__} lacks from_options, which builds the tasks.")

    @abc.abstractmethod
    def episodes(self, split: str, seed: int, training: bool = False) -> Episodes:
        """Returns the tasks of a split by their number.

        Args:
            split: split of the classes.
            seed: seed of the list.
            training: whether the tasks are for meta-training, which has its own size, augmentation
                and random numbers.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """Returns a description of the data in a few lines."""

    @property
    @abc.abstractmethod
    def task(self) -> str:
        """The size of a task in short, such as "5-way 1-shot"."""

    def sizes(self) -> dict[str, int]:
        """Returns the sizes of a task by name, for reports."""
        return {}

    def data_fingerprint(self) -> str:
        """Returns sixteen hexadecimal digits. Equal ones mean that tasks have the same data.

        Here it is a hash of `describe`, which says everything about a formula.
        """
        return hashlib.sha256(self.describe().encode()).hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """Returns facts that a run keeps, so that it can be used without its data, for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "objective": self.objective,
            "fingerprint": self.data_fingerprint(),
        }


class EpisodeTasks(Tasks):
    """Tasks with a support set and queries.

    Attributes:
        spec: size of an episode of validation and test.
        training_spec: size of a training episode.
        plot_range: range of the inputs in figures of functions. The episodes then have
            `function(index)`, the true function. None if there are no such figures.
    """

    spec: EpisodeSpec
    training_spec: EpisodeSpec
    plot_range: ClassVar[tuple[float, float] | None] = None

    @property
    @abc.abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input: (h, w, c) of images."""

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Number of outputs that a learner needs."""

    @functools.cached_property
    def training_way(self) -> int:
        """N of the training episodes."""
        return self.training_spec.num_way

    @functools.cached_property
    def training_classes(self) -> Sequence[str]:
        """Names of all training classes; empty if every episode makes new ones."""
        return ()

    @functools.cached_property
    def num_training_classes(self) -> int:
        """Number of classes in the training split."""
        return len(self.training_classes)

    def joint_batches(self, batch_size: int, seed: int) -> Episodes:
        """Returns batches over all training classes, for tasks that have `training_classes`."""
        raise NotImplementedError(
            f"{type(self).__name__} lacks joint_batches, which draws from all training classes."
        )

    @property
    def task(self) -> str:
        """The size of an episode in short, such as "5-way 1-shot"."""
        return self.spec.task

    def sizes(self) -> dict[str, int]:
        """Returns ways, shots and queries."""
        spec = self.spec
        return {"num_way": spec.num_way, "num_shot": spec.num_shot, "num_query": spec.num_query}

    def facts(self) -> dict[str, Any]:
        """Returns the facts that a learner must fit."""
        return {
            **super().facts(),
            "input_shape": list(self.input_shape),
            "num_outputs": self.num_outputs,
            "training_classes": list(self.training_classes),
            "training_way": self.training_way,
        }


class ProblemTasks(Tasks):
    """Tasks that are losses to minimize.

    Attributes:
        options: the options of the tasks.
        blocks: the tensors of theta.
    """

    kind = PROBLEMS
    objective = "optimization"
    options: Options
    blocks: Blocks

    @abc.abstractmethod
    def problem(self, task: Mapping[str, Tensor]) -> Any:
        """Returns the problem of a task, a `tf_metalstm.problems.Problem`.

        Args:
            task: the tensors of the task from `episodes`, with theta_0 [P].
        """


class ImageTasks(EpisodeTasks):
    """Classification of images.

    Args:
        source: the source of images; it is read when the first episode is needed.
        spec: ways, shots and queries of validation and test.
        normalization: "standard", "unit" or "pixels"; or the constants of a trained run.
        augmentation: names of augmentations in training.
        class_sampling: how the classes of training episodes are drawn. Fixed lists of episodes are
            drawn independently.
        training_spec: ways, shots and queries of training; None for the same.
        skip_small_classes: whether to leave out and name classes that have fewer images than an
            episode needs.
    """

    kind = IMAGES
    objective = "classification"

    def __init__(
        self,
        source: Source,
        spec: EpisodeSpec,
        normalization: str | Normalization = "standard",
        augmentation: Sequence[str] = (),
        class_sampling: str = "independent",
        training_spec: EpisodeSpec | None = None,
        skip_small_classes: bool = False,
    ):
        self.name = source.name
        self.source = source
        self.spec = spec
        self.training_spec = training_spec or spec
        self._normalization = normalization
        self._augmentation = Augmentation(augmentation) if augmentation else None
        self._class_sampling = class_sampling
        self._skip_small_classes = skip_small_classes

    @classmethod
    def of(cls, source: Source, options: ImageOptions) -> ImageTasks:
        """Returns the tasks of a source with these options."""
        return cls(
            source,
            options.spec(),
            options.normalization or "standard",
            options.augmentation,
            options.class_sampling,
            options.training_spec(),
            options.skip_small_classes,
        )

    def normalized_by(self, normalization: Normalization) -> ImageTasks:
        """Returns the same tasks with the normalization of a trained run."""
        names = self._augmentation.names if self._augmentation else ()
        return type(self)(
            self.source,
            self.spec,
            normalization,
            names,
            self._class_sampling,
            self.training_spec,
            self._skip_small_classes,
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(h, w, c) of every image."""
        return self.source.image_shape

    @property
    def num_outputs(self) -> int:
        """The larger N of training and evaluation."""
        return max(self.spec.num_way, self.training_spec.num_way)

    @functools.cached_property
    def training_classes(self) -> Sequence[str]:
        """Names of all training classes; prepares the source."""
        return self.source.class_names("train")

    @functools.cached_property
    def normalization(self) -> Normalization:
        """The normalization of pixels; "standard" prepares the source."""
        if isinstance(self._normalization, Normalization):
            return self._normalization
        return make_normalization(self._normalization, self.source)

    def sampler(self, split: str, seed: int, training: bool = False) -> EpisodeSampler:
        """Returns the sampler of a split, which draws images of episodes; reads its images."""
        spec = self.training_spec if training else self.spec
        classes = self.source.load(split)
        if self._skip_small_classes:
            least, number = spec.images_per_class, len(classes.class_names)
            classes, small = large_enough(classes, least)
            if small:
                print(describe_small(small, number, least, f"{self.name}/{split}"))
        return EpisodeSampler(
            classes,
            split,
            spec,
            seed=seed,
            class_sampling=self._class_sampling if training else "independent",
            source_name=self.name,
            training=training,
        )

    def episodes(self, split: str, seed: int, training: bool = False) -> ImageEpisodes:
        """Returns the episodes of a split; reads its images."""
        augmentation = self._augmentation if training else None
        return ImageEpisodes(self.sampler(split, seed, training), self.normalization, augmentation)

    def check_unseen(self, facts: Any, splits: Sequence[str]) -> None:
        """Checks that the classes of some splits are not those that a method was trained on.

        Args:
            facts: the facts about its training tasks, a `TaskFacts`.
            splits: the splits; the training split is not checked.

        Raises:
            ValueError: the source is the same with other data or other splits, and one of its
                training classes is in one of these splits.
        """
        if facts.name != self.name or facts.fingerprint in (None, self.data_fingerprint()):
            return
        for split in {*splits} - {"train"}:
            try:
                seen = sorted({*facts.training_classes} & {*self.source.class_names(split)})
            except MissingDataError:  # a copy may lack a split
                continue
            if seen:
                raise ValueError(
                    f"{len(seen)} classes of {self.name}/{split} were in the training, such as "
                    f"{seen[0]!r}: split the classes as in the training. If other classes have the "
                    "same names, rename them."
                )

    def data_fingerprint(self) -> str:
        """Returns a hash of the pixels and class names of all splits; prepares the source.

        Equal data have equal hashes, wherever the raw files are.
        """
        digest = hashlib.sha256()
        for split in SPLITS:
            try:
                fingerprint = self.source.fingerprint_of(split)
            except MissingDataError:  # a copy may lack a split
                fingerprint = "nothing"
            digest.update(f"{split}: {fingerprint}\n".encode())
        return digest.hexdigest()[:16]

    def joint_batches(self, batch_size: int, seed: int) -> JointBatches:
        """Returns batches over all training classes, with `batch_size` images each."""
        classes = self.source.load("train")
        return JointBatches(classes, batch_size, self.normalization, self._augmentation, seed)

    def describe(self) -> str:
        """Returns a text with the classes and images of each split."""
        return self.source.describe()

    def facts(self) -> dict[str, Any]:
        """Returns also the constants of the normalization."""
        return {**super().facts(), "normalization": self.normalization._asdict()}
