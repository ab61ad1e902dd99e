"""Training problems of a learned optimizer: stretches of a long run, with random scales.

A run of T updates is divided into stretches of U. The number of a task determines its stretch and
its scales, so a training can continue at any task.

With a curriculum the runs are short at first. Problem number n begins in one of the first
2^(n // C) stretches. Chen et al., "Training stronger baselines for learning to optimize", NeurIPS
2020, lengthen the runs when validation stops improving.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tf_metalstm.data.episodes import Episodes, random_key
from tf_metalstm.episode import Tensor

FIRST_STEP, SCALES = "first_step", "coordinate_scales"
"""Names of the tensors that are added to a task."""

_STRETCH, _SCALES = 101, 102  # streams of random numbers; the streams of sources count from 0


@dataclass(frozen=True)
class TrainingProblems:
    """The training problems of a source, with a stretch and scales.

    Args:
        problems: problems of the source, by their number.
        seed: seed of the training.
        num_steps: T, number of updates of a problem.
        unroll_steps: U, number of updates of a meta-update.
        scaling: s; logarithms of the scales are drawn from -s to s. 0 for no scales.
        doubling: C, number of problems after which the runs are twice as long; None for T updates
            from the start.
    """

    problems: Episodes
    seed: int
    num_steps: int
    unroll_steps: int
    scaling: float = 0.0
    doubling: int | None = None

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the problem with a number.

        Returns:
            Its tensors, with `FIRST_STEP` [], one of 0, U, 2 U ... T - U, and with `SCALES` [P] if
            there are scales; and its label.
        """
        task, label = self.problems(index)
        task = dict(task)
        stretch = tf.random.stateless_uniform(
            [], self._key(index, _STRETCH), maxval=self._num_stretches(index), dtype=tf.int32
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

    def _num_stretches(self, index: Tensor) -> Tensor | int:
        """Returns the number of stretches that a problem may begin in."""
        whole = self.num_steps // self.unroll_steps
        if self.doubling is None:
            return whole
        doublings = tf.minimum(tf.cast(index, tf.int64) // self.doubling, whole.bit_length())
        return tf.minimum(tf.bitwise.left_shift(1, tf.cast(doublings, tf.int32)), whole)

    def _key(self, index: Tensor, stream: int) -> Tensor:
        return random_key(self.seed, "train", stream, tf.cast(index, tf.int64), training=True)
