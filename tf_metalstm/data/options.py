"""Options that sources share: how large an episode is, and what happens to images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tf_metalstm.data.preprocessing import AUGMENTATIONS, NORMALIZATIONS
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.options import Options, option

CLASS_SAMPLINGS = ("independent", "permutation")


@dataclass(frozen=True)
class TrainingEpisodeOptions(Options):
    """Sizes of the training episodes, where they differ from those of validation and test."""

    requires: ClassVar[str | None] = "is_episodic"

    training_num_shot: int | None = option(
        None, "K in training; default: num_shot.", at_least=1, training_only=True
    )
    training_num_query: int | None = option(
        None, "Q in training; default: num_query.", at_least=1, training_only=True
    )


@dataclass(frozen=True)
class EpisodeOptions(TrainingEpisodeOptions):
    """Sizes of an episode."""

    num_shot: int = option(
        5, "K, support images a class, or support points of a function.", at_least=1
    )
    num_query: int = option(
        15, "Q, query images a class, or query points of a function.", at_least=1
    )


@dataclass(frozen=True)
class TrainingClassOptions(Options):
    """How the classes of training episodes are drawn."""

    requires: ClassVar[str | None] = "is_episodic"

    training_num_way: int | None = option(
        None, "N in training; default: num_way.", at_least=2, training_only=True
    )
    class_sampling: str = option(
        "independent",
        "Draw the classes of each training episode, or consume permutations of all classes.",
        choices=CLASS_SAMPLINGS,
        training_only=True,
    )


@dataclass(frozen=True)
class AugmentationOptions(Options):
    """How training images are augmented."""

    requires: ClassVar[str | None] = "is_trained"

    augmentation: tuple[str, ...] = option(
        (),
        "Augmentation in training: mirrored (flip) and shifted (crop) images, classes turned by "
        "quarters (turn), other brightness, contrast and saturation (color).",
        choices=AUGMENTATIONS,
        training_only=True,
    )


@dataclass(frozen=True)
class ImageOptions(EpisodeOptions, TrainingClassOptions, AugmentationOptions):
    """Options of every source of images."""

    num_way: int = option(5, "N, classes of an episode.", at_least=2)
    normalization: str = option(
        "standard",
        "Of pixels: mean and deviation of the training split, or / 255.",
        choices=NORMALIZATIONS,
        settled=True,
        alike=True,
    )

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
