"""Classical test functions of optimization, as problems of a learned optimizer.

Each is shifted so that its lowest value is 0. theta_0 is drawn from a box:

    Rosenbrock         sum over i of 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2            from -2 to 2
    Ackley             -20 exp(-0.2 sqrt(mean x^2)) - exp(mean cos 2 pi x) + 20 + e   from -4 to 4
    Beale              (1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2
                                                                                      from -2 to 2
    Booth              (x + 2 y - 7)^2 + (2 x + y - 5)^2                              from -10 to 10
    Matyas             0.26 (x^2 + y^2) - 0.48 x y                                    from -10 to 10
    Styblinski-Tang    mean over i of (x_i^4 - 16 x_i^2 + 5 x_i) / 2                  from -5 to 5

Jamil & Yang, "A literature survey of benchmark functions for global optimization problems", 2013;
Wichrowska et al., ICML 2017, used them for learned optimizers. With noise, normal numbers are added
to the gradient of each step: the loss is that of the function plus noise * e_t . x, with a new e_t.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tf_metalstm.data.episodes import random_key
from tf_metalstm.data.sources.base import check_split
from tf_metalstm.data.tasks import ProblemTasks
from tf_metalstm.episode import Tensor
from tf_metalstm.options import OptionError, Options, option
from tf_metalstm.parameters import blocks_of
from tf_metalstm.parts import Part


@dataclass(frozen=True)
class ClassicalFunction:
    """A function of a vector.

    value: function from x [D] to a scalar, at least 0.
    reach: theta_0 is drawn from -reach to reach.
    of_two: whether D must be 2.
    """

    value: Callable[[Tensor], Tensor]
    reach: float
    of_two: bool = False


def _rosenbrock(x: Tensor) -> Tensor:
    first, then = x[:-1], x[1:]
    return tf.reduce_sum(100.0 * tf.square(then - tf.square(first)) + tf.square(1.0 - first))


def _ackley(x: Tensor) -> Tensor:
    # The root has no derivative at 0, where the function has its minimum.
    distance = tf.sqrt(tf.reduce_mean(tf.square(x)) + 1e-12)
    waves = tf.reduce_mean(tf.cos(2.0 * math.pi * x))
    return 20.0 - 20.0 * tf.exp(-0.2 * distance) + math.e - tf.exp(waves)


def _beale(x: Tensor) -> Tensor:
    terms = [c - x[0] + x[0] * x[1] ** p for p, c in ((1, 1.5), (2, 2.25), (3, 2.625))]
    return tf.add_n([tf.square(each) for each in terms])


def _booth(x: Tensor) -> Tensor:
    return tf.square(x[0] + 2.0 * x[1] - 7.0) + tf.square(2.0 * x[0] + x[1] - 5.0)


def _matyas(x: Tensor) -> Tensor:
    return 0.26 * tf.reduce_sum(tf.square(x)) - 0.48 * x[0] * x[1]


# The lowest value of (x^4 - 16 x^2 + 5 x) / 2, at -2.903534.
_STYBLINSKI_TANG = -39.16616570377142


def _styblinski_tang(x: Tensor) -> Tensor:
    return tf.reduce_mean(x**4 - 16.0 * tf.square(x) + 5.0 * x) / 2.0 - _STYBLINSKI_TANG


FUNCTIONS = {
    "rosenbrock": ClassicalFunction(_rosenbrock, 2.0),
    "ackley": ClassicalFunction(_ackley, 4.0),
    "beale": ClassicalFunction(_beale, 2.0, of_two=True),
    "booth": ClassicalFunction(_booth, 10.0, of_two=True),
    "matyas": ClassicalFunction(_matyas, 10.0, of_two=True),
    "styblinski_tang": ClassicalFunction(_styblinski_tang, 5.0),
}

_START, _NOISE = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class ClassicalFunctionOptions(Options):
    """Options of the test functions."""

    test_function: str = option(
        "rosenbrock", "Name of the test function.", choices=tuple(FUNCTIONS)
    )
    test_function_size: int = option(
        2, "D, the number of parameters in theta, for functions of any number.", at_least=2
    )
    test_function_noise: float = option(
        0.0, "Deviation of the noise on each number of a gradient; 0: none.", at_least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if FUNCTIONS[self.test_function].of_two and self.test_function_size != 2:
            raise OptionError(
                "test_function_size",
                f"must be 2 with test_function={self.test_function}, which is a function of two "
                f"numbers; got {self.test_function_size}.",
            )


@dataclass(frozen=True)
class NoisyFunction:
    """One problem.

    function: the function to minimize.
    noise: deviation of the noise on each number of a gradient.
    key: key of the random numbers of the noise, int64 [2].
    """

    function: ClassicalFunction
    noise: float
    key: Tensor

    def initial_carry(self) -> tuple[()]:
        """Returns (): the loss at theta only depends on theta."""
        return ()

    def loss(self, theta: Tensor, carry: Any, step: Any) -> tuple[Tensor, Any]:
        """Returns the value, whose gradient has the noise of the step, and the carry ()."""
        value = self.function.value(theta)
        if self.noise:
            key = tf.random.fold_in(self.key, tf.cast(step, tf.int64))
            drawn = tf.random.stateless_normal(tf.shape(theta), key, dtype=theta.dtype)
            tilt = self.noise * tf.reduce_sum(drawn * theta)
            value += tilt - tf.stop_gradient(tilt)  # only changes the gradient
        return value, carry

    def gradient_scale(self) -> float:
        """Returns 1."""
        return 1.0


@dataclass(frozen=True)
class ClassicalFunctionEpisodes:
    """The problems on a test function, by their number.

    Args:
        options: the options of the function.
        split: its name goes into the random numbers.
        seed: any integer that fits 32 bits.
        training: whether to use the keys of training, which no list uses.
    """

    options: ClassicalFunctionOptions
    split: str
    seed: int
    training: bool = False

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns theta_0 [D] and noise_key [2], and an unused label, []."""
        reach = FUNCTIONS[self.options.test_function].reach
        shape = [self.options.test_function_size]
        task = {
            "theta_0": tf.random.stateless_uniform(shape, self._key(index, _START), -reach, reach),
            "noise_key": self._key(index, _NOISE),
        }
        return task, tf.zeros([])

    def fingerprint(self, num_episodes: int) -> str:
        """Returns a hash of problems 0 ... num_episodes - 1."""
        digest = hashlib.sha256(f"test_functions/{self.split}: {self.options}".encode())
        for index in range(num_episodes):
            task, _ = self(tf.constant(index, tf.int64))
            digest.update(tf.io.serialize_tensor(task["theta_0"]).numpy())
        return digest.hexdigest()[:16]

    def _key(self, index: Tensor, stream: int) -> Tensor:
        index = tf.cast(index, tf.int64)
        return random_key(self.seed, self.split, stream, index, self.training)


class ClassicalFunctionTasks(ProblemTasks):
    """One classical test function with many random theta_0.

    Args:
        options: the options of this source.
    """

    part = Part(
        "test_functions", "Classical test functions", "Jamil & Yang, 2013", ClassicalFunctionOptions
    )
    name = "test_functions"
    options: ClassicalFunctionOptions

    def __init__(self, options: ClassicalFunctionOptions | None = None) -> None:
        self.options = options or ClassicalFunctionOptions()
        self.blocks = blocks_of([("theta", (self.options.test_function_size,))])

    @classmethod
    def from_options(  # type: ignore[override]
        cls, options: ClassicalFunctionOptions
    ) -> ClassicalFunctionTasks:
        return cls(options)

    @property
    def task(self) -> str:
        """Name of the task, such as "rosenbrock in 2 dimensions"."""
        noise = self.options.test_function_noise
        text = f"{self.options.test_function} in {self.options.test_function_size} dimensions"
        return text + (f", noise {noise:g}" if noise else "")

    def episodes(self, split: str, seed: int, training: bool = False) -> ClassicalFunctionEpisodes:
        """Returns the problems of a split."""
        return ClassicalFunctionEpisodes(self.options, check_split(split), seed, training)

    def problem(self, task: Mapping[str, Tensor]) -> NoisyFunction:
        """Returns the function of a task."""
        function = FUNCTIONS[self.options.test_function]
        return NoisyFunction(function, self.options.test_function_noise, task["noise_key"])

    def describe(self) -> str:
        """Returns the function, its size and its noise."""
        return f"test functions: {self.task}"
