"""Options that sources share: the size of an episode, normalization and augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tf_metalstm.data.preprocessing import AUGMENTATIONS, NORMALIZATIONS
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.options import Options, option

CLASS_SAMPLINGS = ("independent", "permutation")


@dataclass(frozen=True)
class DataDirOptions(Options):
    """The folder of raw files."""

    data_dir: str | None = option(
        None, "Folder with the raw files of the source.", may_change=True, is_path=True
    )


@dataclass(frozen=True)
class PreparedDirOptions(Options):
    """The folder of prepared data."""

    prepared_dir: str | None = option(
        None,
        "Folder of prepared data; default: a cache in the home folder.",
        may_change=True,
        is_path=True,
    )


@dataclass(frozen=True)
class TrainingEpisodeOptions(Options):
    """Sizes of the training episodes, if they differ from those of validation and test."""

    requires: ClassVar[str | None] = "is_episodic"

    training_num_shot: int | None = option(
        None, "K of training episodes; default: num_shot.", at_least=1, training_only=True
    )
    training_num_query: int | None = option(
        None, "Q of training episodes; default: num_query.", at_least=1, training_only=True
    )


@dataclass(frozen=True)
class EpisodeOptions(TrainingEpisodeOptions):
    """Sizes of an episode."""

    num_shot: int = option(
        5,
        "K, the number of support images of each class, or of support points of a function.",
        at_least=1,
    )
    num_query: int = option(
        15,
        "Q, the number of query images of each class, or of query points of a function.",
        at_least=1,
    )


@dataclass(frozen=True)
class TrainingClassOptions(Options):
    """How the classes of training episodes are drawn."""

    requires: ClassVar[str | None] = "is_episodic"

    training_num_way: int | None = option(
        None, "N of training episodes; default: num_way.", at_least=2, training_only=True
    )
    class_sampling: str = option(
        "independent",
        "How the classes of a training episode are chosen: drawn for each episode (independent), "
        "or N at a time from permutations of all classes (permutation).",
        choices=CLASS_SAMPLINGS,
        training_only=True,
    )


@dataclass(frozen=True)
class AugmentationOptions(Options):
    """How training images are augmented."""

    requires: ClassVar[str | None] = "is_trained"

    augmentation: tuple[str, ...] = option(
        (),
        "Changes of training images: flip mirrors and crop shifts each image, color changes its "
        "brightness, contrast and saturation, turn rotates whole classes by quarter turns, affine "
        "distorts each image as Koch et al. do, tilt as Santoro et al. do.",
        choices=AUGMENTATIONS,
        training_only=True,
    )


@dataclass(frozen=True)
class ImageClassOptions(Options):
    """Options of all tasks that are made of classes of images."""

    num_way: int = option(5, "N, the number of classes in an episode.", at_least=2)
    skip_small_classes: bool = option(
        False, "Leave out classes that have too few images for an episode."
    )
    normalization: str | None = option(
        None,
        "How pixels are normalized: by mean and deviation of the training split (standard), "
        "divided by 255 (unit), 1 minus that (inverted), or not (pixels); default: standard, "
        "but pixels for a pretrained network, which has its own preprocessing.",
        choices=NORMALIZATIONS,
        settled=True,
        alike=True,
    )


@dataclass(frozen=True)
class ImageOptions(EpisodeOptions, TrainingClassOptions, AugmentationOptions, ImageClassOptions):
    """Options of every source of images."""

    def spec(self) -> EpisodeSpec:
        """Returns the size of an episode of validation and test."""
        return EpisodeSpec(self.num_way, self.num_shot, self.num_query)

    def training_spec(self) -> EpisodeSpec:
        """Returns the size of a training episode."""
        return EpisodeSpec(
            self.training_num_way or self.num_way,
            self.training_num_shot or self.num_shot,
            self.training_num_query or self.num_query,
        )
