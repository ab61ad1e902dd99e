"""Tasks with a support set: every class is a random pattern, and its images are noisy."""

from dataclasses import dataclass

import tensorflow as tf

from tf_metalstm import EpisodeSpec, EpisodeTasks, Options, Part, option

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PatternOptions(Options):
    pattern_noise: float = option(1.0, "Standard deviation of the noise of an image.", above=0)


class PatternEpisodes:
    """Episode number i is a function of (split, seed, i). Images of the queries come last."""

    def __init__(self, spec, noise, *key):
        self.spec, self.noise, self.key = spec, noise, key

    def __call__(self, index):
        spec = self.spec
        seed = tf.random.fold_in(tf.constant(self.key, tf.int64), tf.cast(index, tf.int64))
        shape = [spec.images_per_class, spec.num_way, 8, 8, 1]
        patterns = tf.random.stateless_normal(shape[1:], seed)
        noise = tf.random.stateless_normal(shape, tf.random.fold_in(seed, 1))
        images = tf.reshape(patterns + self.noise * noise, [-1, 8, 8, 1])
        labels = tf.tile(tf.range(spec.num_way), [spec.images_per_class])
        support = spec.num_way * spec.num_shot
        inputs = {
            "support_inputs": images[:support],
            "support_labels": labels[:support],
            "query_inputs": images[support:],
        }
        return inputs, labels[support:]

    def fingerprint(self, num_episodes):
        return f"patterns {self.spec} {self.noise} {self.key} {num_episodes}"


class PatternTasks(EpisodeTasks):
    part = Part("patterns", "Random patterns", options=PatternOptions)
    name = "patterns"
    kind = "images"
    objective = "classification"
    input_shape = (8, 8, 1)
    num_outputs = 5
    spec = training_spec = EpisodeSpec(num_way=5, num_shot=2, num_query=3)

    def __init__(self, options):
        self.options = options

    @classmethod
    def from_options(cls, options):
        return cls(options)

    def episodes(self, split, seed, training=False):
        number = SPLITS.index(split) + 10 * training  # training has random numbers of its own
        return PatternEpisodes(self.spec, self.options.pattern_noise, number, seed)

    def describe(self):
        return f"patterns with noise of {self.options.pattern_noise}"


PARTS = (PatternTasks,)
