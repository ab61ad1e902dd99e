"""Problems as a learned optimizer is trained on them: a stretch of a long way, scaled at random.

A way of T updates is cut into stretches of U. A task says at which of them its meta-update begins,
so that a training can go on at any task: everything is a function of its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tf_metalstm.data.episodes import Episodes, random_key
from tf_metalstm.episode import Tensor

FIRST_STEP, SCALES = "first_step", "coordinate_scales"
"""Names of what is added to the tensors of a task."""

_STRETCH, _SCALES = 101, 102  # streams of random numbers; those of the sources count from 0


@dataclass(frozen=True)
class TrainingProblems:
    """The training problems of a source, with what only training needs.

    Args:
        problems: of the source, by their number.
        seed: of the training.
        num_steps: T, updates of a problem.
        unroll_steps: U, those of a meta-update.
        scaling: s, logarithms of the scales are drawn from -s to s; 0 for no scales.
    """

    problems: Episodes
    seed: int
    num_steps: int
    unroll_steps: int
    scaling: float = 0.0

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the problem of a number.

        Returns:
            its tensors, `FIRST_STEP` [], one of 0, U, 2 U ... T - U, and, if there is a scaling,
            `SCALES` [P]; and its label.
        """
        task, label = self.problems(index)
        task = dict(task)
        stretch = tf.random.stateless_uniform(
            [],
            self._key(index, _STRETCH),
            maxval=self.num_steps // self.unroll_steps,
            dtype=tf.int32,
        )
        task[FIRST_STEP] = stretch * self.unroll_steps
        if self.scaling:
            logarithms = tf.random.stateless_uniform(
                tf.shape(task["theta_0"]),
                self._key(index, _SCALES),
                -self.scaling,
                self.scaling,
            )
            task[SCALES] = tf.exp(tf.ensure_shape(logarithms, task["theta_0"].shape))
        return task, label

    def fingerprint(self, num_episodes: int) -> str:
        """Returns that of the problems."""
        return self.problems.fingerprint(num_episodes)

    def _key(self, index: Tensor, stream: int) -> Tensor:
        return random_key(self.seed, "train", stream, tf.cast(index, tf.int64), training=True)
