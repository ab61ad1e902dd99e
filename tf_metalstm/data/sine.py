"""Sine waves: an episode is a function, and its support set is some points on it.

Finn et al., "Model-Agnostic Meta-Learning", ICML 2017, section 5.1:

    y = A sin(w x + b)    A in [0.1, 5], w = 1, b in [0, pi], x in [-5, 5], all uniform

Others let w vary as well: Li et al., "Meta-SGD", 2017. The wave A sin(w x) has w in [0, pi]
and b = 0. There are no classes, so the splits are streams of different random numbers.

    formula      code         shape
    A, w, b      Wave         []
    x            inputs       [K, 1] support, [Q, 1] queries
    y            labels       [K, 1], [Q, 1]
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from tf_metalstm.data.episodes import random_key
from tf_metalstm.data.options import EpisodeOptions
from tf_metalstm.data.sources.base import check_split
from tf_metalstm.data.tasks import FUNCTIONS, EpisodeTasks
from tf_metalstm.episode import EpisodeSpec, Tensor
from tf_metalstm.graphs import graph_function
from tf_metalstm.options import check_bounds, option
from tf_metalstm.parts import Part

AMPLITUDES = (0.1, 5.0)
INPUTS = (-5.0, 5.0)


class Wave(NamedTuple):
    """The function of one episode."""

    amplitude: Tensor
    frequency: Tensor
    phase: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Returns A sin(w x + b); x may have any shape."""
        return self.amplitude * tf.sin(self.frequency * x + self.phase)


@dataclass(frozen=True)
class SineEpisodes:
    """Episodes of points on waves.

    Args:
        spec: K and Q; N is 1.
        split: name of the split; the random numbers depend on it.
        seed: any integer that fits 32 bits.
        frequencies: lowest and highest w.
        phases: lowest and highest b.
        training: whether to use the random numbers of training, which no list of episodes uses.
    """

    spec: EpisodeSpec
    split: str
    seed: int
    frequencies: tuple[float, float]
    phases: tuple[float, float]
    training: bool = False

    def function(self, index: Tensor) -> Wave:
        """Returns the function of episode `index`."""
        key = self._key(index, stream=0)
        drawn = tf.random.stateless_uniform([3], key)
        bounds = (AMPLITUDES, self.frequencies, self.phases)
        return Wave(*(low + (high - low) * drawn[i] for i, (low, high) in enumerate(bounds)))

    def __call__(self, index: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Returns the support [K, 1] and the queries [Q, 1] with their labels, all float32."""
        num_shot, num_points = self.spec.num_shot, self.spec.num_shot + self.spec.num_query
        key = self._key(index, stream=1)
        x = tf.random.stateless_uniform([num_points, 1], key, *INPUTS)
        y = self.function(index)(x)
        inputs = {
            "support_inputs": x[:num_shot],
            "support_labels": y[:num_shot],
            "query_inputs": x[num_shot:],
        }
        return inputs, y[num_shot:]

    def fingerprint(self, num_episodes: int) -> str:
        """Returns a hash of the waves and points of episodes 0 ... num_episodes - 1."""
        digest = hashlib.sha256(f"sine/{self.split}: {self.spec}".encode())
        episode = graph_function(self)
        for index in range(num_episodes):
            inputs, labels = episode(tf.constant(index, tf.int64))
            for tensor in (*inputs.values(), labels):
                digest.update(tf.io.serialize_tensor(tensor).numpy())
        return digest.hexdigest()[:16]

    def _key(self, index: Tensor, stream: int) -> Tensor:
        index = tf.cast(index, tf.int64)
        return random_key(self.seed, self.split, stream, index, self.training)


@dataclass(frozen=True)
class SineOptions(EpisodeOptions):
    """Options of the sine waves."""

    sine_frequencies: tuple[float, ...] = option(
        (1.0, 1.0), "Lowest and highest w in A sin(w x + b)."
    )
    sine_phases: tuple[float, ...] = option(
        (0.0, math.pi), "Lowest and highest b in A sin(w x + b)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds("sine_frequencies", self.sine_frequencies)
        check_bounds("sine_phases", self.sine_phases)


class SineTasks(EpisodeTasks):
    """Regression of sine waves.

    Args:
        num_shot: K, number of support points.
        num_query: Q, number of query points.
        frequencies: lowest and highest w.
        phases: lowest and highest b.
        training_num_shot: K in training; None for `num_shot`.
        training_num_query: Q in training; None for `num_query`.
    """

    part = Part("sine", "Sine waves", "Finn et al., ICML 2017", SineOptions)
    name = "sine"
    kind = FUNCTIONS
    objective = "regression"
    input_shape = (1,)
    num_outputs = 1
    plot_range = INPUTS

    def __init__(
        self,
        num_shot: int = 10,
        num_query: int = 10,
        frequencies: tuple[float, float] = (1.0, 1.0),
        phases: tuple[float, float] = (0.0, math.pi),
        training_num_shot: int | None = None,
        training_num_query: int | None = None,
    ):
        self.spec = EpisodeSpec(1, num_shot, num_query)
        self.training_spec = EpisodeSpec(
            1, training_num_shot or num_shot, training_num_query or num_query
        )
        self._frequencies = frequencies
        self._phases = phases

    @classmethod
    def from_options(cls, options: SineOptions) -> SineTasks:  # type: ignore[override]
        return cls(
            options.num_shot,
            options.num_query,
            (options.sine_frequencies[0], options.sine_frequencies[1]),
            (options.sine_phases[0], options.sine_phases[1]),
            options.training_num_shot,
            options.training_num_query,
        )

    def episodes(self, split: str, seed: int, training: bool = False) -> SineEpisodes:
        """Returns the episodes of a split."""
        ranges = (self._frequencies, self._phases)
        spec = self.training_spec if training else self.spec
        return SineEpisodes(spec, check_split(split), seed, *ranges, training)

    def describe(self) -> str:
        """Returns the formula with the ranges of its letters."""
        return (
            f"sine: A sin(w x + b), A in {list(AMPLITUDES)}, w in {list(self._frequencies)}, "
            f"b in {[round(b, 4) for b in self._phases]}, x in {list(INPUTS)}"
        )
