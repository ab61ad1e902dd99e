"""A task without images: valleys of a given width, in three dimensions, to be minimized."""

from dataclasses import dataclass

import tensorflow as tf

from tf_metalstm import Options, Part, ProblemTasks, option
from tf_metalstm.parameters import blocks_of


@dataclass(frozen=True)
class ValleyOptions(Options):
    valley_width: float = option(2.0, "Width of the valley.", above=0)


class Valley:
    """One problem: L(theta) = |theta|^2 / width. It needs no data, so its carry is empty."""

    def __init__(self, width):
        self.width = width

    def initial_carry(self):
        return ()

    def loss(self, theta, carry, step):
        return tf.reduce_sum(tf.square(theta)) / self.width, carry

    def gradient_scale(self):
        return 1.0


class ValleyEpisodes:
    """Problem number i is a function of (split, seed, i): here it says where theta begins."""

    def __init__(self, *key):
        self.key = key

    def __call__(self, index):
        seed = tf.random.fold_in(tf.constant(self.key, tf.int64), index)
        return {"theta_0": tf.random.stateless_normal([3], seed)}, tf.zeros([])

    def fingerprint(self, num_episodes):
        return f"valleys {self.key} {num_episodes}"


class ValleyTasks(ProblemTasks):
    part = Part("valleys", "Round valleys", options=ValleyOptions)
    name = "valleys"
    task = "3-dimensional"
    blocks = blocks_of([("x", (2,)), ("y", (1,))])  # theta: a tensor x and a tensor y

    def __init__(self, options):
        self.options = options

    @classmethod
    def from_options(cls, options):
        return cls(options)

    def episodes(self, split, seed, training=False):
        return ValleyEpisodes(("train", "validation", "test").index(split) + 10 * training, seed)

    def problem(self, task):
        return Valley(self.options.valley_width)

    def describe(self):
        return f"valleys of width {self.options.valley_width}"


PARTS = (ValleyTasks,)
