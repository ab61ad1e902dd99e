"""One-shot trials within an alphabet of Omniglot, which measure siamese networks.

Koch, Zemel & Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition", ICML Deep
Learning Workshop 2015, section 4.3; after Lake et al., Science 2015. A trial shows an image and
asks which of 20 others has the same character:

- The 20 characters are of one alphabet. They are drawn anew for each 20 trials.
- Two of the four test drawers are chosen. The first drew the 20 images to choose from, the second
  the 20 query images, one of each character.
- This is done twice for each of ten alphabets: 10 x 2 x 20 = 400 trials.

So it is a 20-way 1-shot episode with one query a class, and the protocol has 20 episodes. Episode i
is of alphabet i mod 10. A longer list continues in the same way, and has a narrower interval.

The paper does not name its alphabets. Here they are the first ten, by name, of the split's
alphabets with 20 or more characters. The test alphabets are from the authors' evaluation set. The
test drawers are numbers 17 to 20. Each alphabet has other drawers, so training has none of theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tf_metalstm.data.episodes import EpisodeSampler
from tf_metalstm.data.sources.file_source import FilePlaceOptions
from tf_metalstm.data.sources.omniglot import IMAGE_SIZE, Omniglot
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.episode import EpisodeSpec, Tensor
from tf_metalstm.parts import Part

NUM_ALPHABETS, NUM_WAY = 10, 20
NUM_DRAWERS = 20  # drawers of each character
TEST_DRAWERS = (16, 17, 18, 19)  # counted from 0


@dataclass(frozen=True)
class TrialSampler(EpisodeSampler):
    """Draws the images of the trials of an alphabet; the arguments are those of `EpisodeSampler`.

    Raises:
        ValueError: no alphabet has enough characters, or a character lacks a drawing.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"{self.source_name}/{self.split}"
        if not self.alphabets:
            raise ValueError(
                f"No alphabet of {where} has {self.spec.num_way} characters, as a trial needs: is "
                "the copy of Omniglot complete?"
            )
        if np.any(self.classes.class_sizes != NUM_DRAWERS):
            name = self.classes.class_names[int(np.argmin(self.classes.class_sizes))]
            raise ValueError(
                f"Each character needs its {NUM_DRAWERS} drawings, by which the drawers are known, "
                f"but {name!r} of {where} has {int(np.min(self.classes.class_sizes))}: use a "
                "complete copy of Omniglot."
            )

    @functools.cached_property
    def alphabets(self) -> dict[str, tuple[int, int]]:
        """The first character of each alphabet, and its number of characters, by name."""
        names = np.array([alphabet_of(name) for name in self.classes.class_names])
        known, first, sizes = np.unique(names, return_index=True, return_counts=True)
        usable = [i for i in range(len(known)) if sizes[i] >= self.spec.num_way][:NUM_ALPHABETS]
        return {str(known[i]): (int(first[i]), int(sizes[i])) for i in usable}

    def sample(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the characters [N], and for each the drawing to choose and the query drawing."""
        index = tf.cast(index, tf.int64)
        first, size = tf.unstack(
            tf.gather(list(self.alphabets.values()), index % len(self.alphabets))
        )
        shuffle = tf.random.experimental.stateless_shuffle
        drawn = first + shuffle(tf.range(size), self._key(index, stream=0))[: self.spec.num_way]
        drawers = shuffle(tf.constant(TEST_DRAWERS), self._key(index, stream=1))
        members = tf.tile(drawers[tf.newaxis, :2], [self.spec.num_way, 1])
        return tf.ensure_shape(drawn, [self.spec.num_way]), members


class OmniglotTrials(ImageTasks):
    """The trials of the alphabets of each split."""

    part = Part(
        "omniglot_trials",
        "One-shot trials within an alphabet of Omniglot",
        "Koch et al., ICML Deep Learning Workshop 2015",
        FilePlaceOptions,
    )

    @classmethod
    def from_options(  # type: ignore[override]
        cls, options: FilePlaceOptions
    ) -> ImageTasks:
        source = Omniglot(
            options.data_dir,
            options.prepared_dir,
            split="alphabets",
            rotations=False,
            image_size=options.image_size or IMAGE_SIZE,
            skip_corrupt=options.skip_corrupt,
        )
        return cls(source, EpisodeSpec(NUM_WAY, 1, 1))

    def sampler(self, split: str, seed: int, training: bool = False) -> TrialSampler:
        """Returns the sampler of the trials of a split; reads its images."""
        return TrialSampler(
            self.source.load(split),
            split,
            self.spec,
            seed=seed,
            source_name=self.name,
            training=training,
        )

    def check_unseen(self, facts: Any, splits: Sequence[str]) -> None:
        """Checks that no test alphabet was in the training of a run.

        Raises:
            ValueError: one of its training classes is of a test alphabet.
        """
        asked = {alphabet_of(name) for name in self.source.class_names("test")}
        seen = sorted({alphabet_of(name) for name in facts.training_classes} & asked)
        if seen:
            raise ValueError(
                f"The run was trained on characters of {len(seen)} alphabets of the trials, such "
                f"as {seen[0]}, but a trial is of an alphabet that is new: train with "
                "omniglot_split=alphabets."
            )


def alphabet_of(class_name: str) -> str:
    """Returns the alphabet of a character.

    >>> alphabet_of("Angelic/character01@090")
    'Angelic'
    """
    return class_name.partition("/")[0]
