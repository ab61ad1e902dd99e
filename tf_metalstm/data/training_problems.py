"""Training problems of a learned optimizer: stretches of a long run, with random scales.

A run of T updates is divided into stretches of U. The number of a task determines its stretch and
its scales, so a training can continue at any task.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tf_metalstm.data.episodes import Episodes, random_key
from tf_metalstm.episode import Tensor

FIRST_STEP, SCALES = "first_step", "coordinate_scales"
"""Names of the tensors that are added to a task."""

_STRETCH, _SCALES = 101, 102  # streams of random numbers; those of the sources count from 0


@dataclass(frozen=True)
class TrainingProblems:
    """The training problems of a source, with a stretch and scales.

    Args:
        problems: problems of the source, by their number.
        seed: seed of the training.
        num_steps: T, number of updates of a problem.
        unroll_steps: U, number of updates of a meta-update.
        scaling: s; logarithms of the scales are drawn from -s to s. 0 for no scales.
    """

    problems: Episodes
    seed: int
    num_steps: int
    unroll_steps: int
    scaling: float = 0.0

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the problem with a number.

        Returns:
            Its tensors, with `FIRST_STEP` [], one of 0, U, 2 U ... T - U, and with `SCALES` [P] if
            there are scales; and its label.
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
        """Returns the fingerprint of the problems."""
        return self.problems.fingerprint(num_episodes)

    def _key(self, index: Tensor, stream: int) -> Tensor:
        return random_key(self.seed, "train", stream, tf.cast(index, tf.int64), training=True)
