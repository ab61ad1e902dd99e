"""Random quadratics: the first problems of the learned optimizers.

Andrychowicz et al., "Learning to learn by gradient descent by gradient descent", NIPS 2016,
section 3.1:

    f(theta) = |W theta - y|^2      W [D, D], y [D]

The paper draws the entries of W and y from a normal distribution and starts at 0. Its authors' code
draws them uniformly from [0, 1) and starts at a normal vector with deviation 0.01. There are no
classes, so the splits are different streams of random numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tf_metalstm.data.episodes import random_key
from tf_metalstm.data.sources.base import check_split
from tf_metalstm.data.tasks import ProblemTasks
from tf_metalstm.episode import Tensor
from tf_metalstm.options import Options, option
from tf_metalstm.parameters import blocks_of
from tf_metalstm.parts import Part

CONVENTIONS = ("code", "paper")


@dataclass(frozen=True)
class QuadraticOptions(Options):
    """Options of the quadratics."""

    quadratic_size: int = option(
        10, "D, the number of parameters in theta.", at_least=1, alike=True
    )
    quadratic_convention: str = option(
        "code",
        "How W, y and theta_0 are drawn: as in the authors' code or in their paper.",
        choices=CONVENTIONS,
    )


@dataclass(frozen=True)
class Quadratic:
    """One problem.

    matrix: W, [D, D].
    target: y, [D].
    """

    matrix: Tensor
    target: Tensor

    def initial_carry(self) -> tuple[()]:
        """Returns (): the loss only depends on theta."""
        return ()

    def loss(self, theta: Tensor, carry: Any, step: Any) -> tuple[Tensor, Any]:
        """Returns |W theta - y|^2, and the carry ()."""
        del step
        return tf.reduce_sum(tf.square(tf.linalg.matvec(self.matrix, theta) - self.target)), carry

    def gradient_scale(self) -> float:
        """Returns 1."""
        return 1.0


@dataclass(frozen=True)
class QuadraticEpisodes:
    """The quadratics by their number.

    Args:
        size: D.
        convention: "code" or "paper".
        split: its name goes into the random numbers.
        seed: any integer that fits 32 bits.
        training: whether to use the keys of training, which no list uses.
    """

    size: int
    convention: str
    split: str
    seed: int
    training: bool = False

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns matrix [D, D], target [D] and theta_0 [D], and an unused label, []."""
        draw = (
            tf.random.stateless_uniform
            if self.convention == "code"
            else (tf.random.stateless_normal)
        )
        task = {
            "matrix": draw([self.size, self.size], self._key(index, 0)),
            "target": draw([self.size], self._key(index, 1)),
            "theta_0": tf.zeros([self.size]),
        }
        if self.convention == "code":
            key = self._key(index, 2)
            task["theta_0"] = tf.random.stateless_normal([self.size], key, stddev=0.01)
        return task, tf.zeros([])

    def fingerprint(self, num_episodes: int) -> str:
        """Returns a hash of problems 0 ... num_episodes - 1."""
        digest = hashlib.sha256(f"quadratics/{self.split}: {self.convention}".encode())
        for index in range(num_episodes):
            task, _ = self(tf.constant(index, tf.int64))
            for name in sorted(task):
                digest.update(tf.io.serialize_tensor(task[name]).numpy())
        return digest.hexdigest()[:16]

    def _key(self, index: Tensor, stream: int) -> Tensor:
        index = tf.cast(index, tf.int64)
        return random_key(self.seed, self.split, stream, index, self.training)


class QuadraticTasks(ProblemTasks):
    """Random quadratics.

    Args:
        size: D.
        convention: "code" or "paper", as explained above.
    """

    part = Part(
        "quadratics", "Random quadratics", "Andrychowicz et al., NIPS 2016", QuadraticOptions
    )
    name = "quadratics"

    def __init__(self, size: int = 10, convention: str = "code"):
        self.options = QuadraticOptions(size, convention)
        self.size, self.convention = size, convention
        self.blocks = blocks_of([("theta", (size,))])

    @classmethod
    def from_options(cls, options: QuadraticOptions) -> QuadraticTasks:  # type: ignore[override]
        return cls(options.quadratic_size, options.quadratic_convention)

    @property
    def task(self) -> str:
        """Name of the task, such as "10-dimensional"."""
        return f"{self.size}-dimensional"

    def episodes(self, split: str, seed: int, training: bool = False) -> QuadraticEpisodes:
        """Returns the problems of a split."""
        return QuadraticEpisodes(self.size, self.convention, check_split(split), seed, training)

    def problem(self, task: Mapping[str, Tensor]) -> Quadratic:
        """Returns the quadratic of a task."""
        return Quadratic(task["matrix"], task["target"])

    def describe(self) -> str:
        """Returns the formula."""
        return f"quadratics: |W theta - y|^2 in {self.size} dimensions, as in the {self.convention}"
