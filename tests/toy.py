"""Small objects for many tests: a learner, a method, an episode, images of classes."""

import random
from typing import ClassVar
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.data.episodes import EpisodeSampler, ImageEpisodes
from tf_metalstm.data.options import ImageOptions
from tf_metalstm.data.preprocessing import Normalization
from tf_metalstm.data.sources.base import SPLITS, ClassImages, Source, SplitCounts
from tf_metalstm.data.streams import StreamOptions, StreamTasks
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.episode import EpisodeSpec, Support
from tf_metalstm.learners.conv4 import conv4
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.learners.mlp import mlp
from tf_metalstm.methods.catalogue import METHODS
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.prototypical_networks import PrototypicalNetworks
from tf_metalstm.objectives import REGRESSION
from tf_metalstm.parts import Part
from tf_metalstm.rules.meta_lstm import MetaLSTM
from tf_metalstm.rules.meta_sgd import MetaSGD
from tf_metalstm.rules.sgd import SGD
from tf_metalstm.serving import saved_model
from tf_metalstm.serving.served import ServedMethod
from tf_metalstm.settings import make_settings
from tf_metalstm.starts.c_0 import LearnedStart


def seed(number):
    """Seeds Keras's initial weights without losing compiled functions.

    `keras.utils.set_random_seed` also seeds TensorFlow, which then forgets its compiled functions.
    """
    random.seed(number)


FEW_SHOT_RULES = ("meta_lstm", "sgd", "meta_sgd")
"""Rules that few-shot methods are tested with; of a rule they know nothing but its protocol."""


def noise(*shape, seed=0):
    """Returns normal random numbers, float32."""
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def mlp_learner(dtype="float64", num_inputs=3, num_way=2, activation="tanh"):
    """Returns a small smooth network, so that finite differences are exact."""
    return FunctionalLearner(mlp((num_inputs,), num_way, (4,), activation=activation, dtype=dtype))


def conv_learner(dtype="float32", num_way=5, filters=4):
    return FunctionalLearner(conv4((16, 16, 1), num_way, filters, dtype=dtype))


def lively_rule(hidden_units=3, gate_feedback="value", dtype="float64"):
    """Returns a meta-LSTM with large weights: gates depend on inputs, and rates move theta."""
    rule = MetaLSTM(hidden_units, gate_feedback, dtype=dtype)
    rule.build()
    generator = np.random.default_rng(5)
    rule.set_weights([generator.normal(0.0, 0.5, w.shape) for w in rule.weights])
    return rule


def learned_sgd():
    """Returns gradient descent with one learned rate, float64."""
    rule = SGD(0.1, learned=True, dtype="float64")
    rule.build()
    return rule


def meta_sgd():
    """Returns a rule with a rate for every coordinate of `mlp_learner`, float64."""
    rule = MetaSGD(0.05, 0.2, dtype="float64")
    rule.build(mlp_learner().parameter_blocks)
    return rule


def image_learner(num_way=5):
    """Returns a network with batch norm for the same images, whose graph is quick to make."""
    return FunctionalLearner(mlp((16, 16, 1), num_way, (8,), batch_normalization=True))


def conv_method(num_way=5, **options):
    return image_method(num_way=num_way, learner=conv_learner(num_way=num_way), **options)


def image_method(
    num_steps=2,
    num_way=5,
    query_normalization="running",
    rule=None,
    learn_c_0=True,
    learn_linear=True,
    batch_size=None,
    learner=None,
    **inner_loop,
):
    return GradientBasedMethod(
        image_learner(num_way) if learner is None else learner,
        MetaLSTM(4) if rule is None else rule,
        InnerLoop(num_steps, **inner_loop),
        query_normalization,
        start=LearnedStart(learn_c_0, learn_linear),
        batch_size=batch_size,
    )


def regression_method(rule, num_steps=2, **options):
    """Returns a method for functions of one number, float64."""
    learner = FunctionalLearner(mlp((1,), 1, (4,), activation="tanh", dtype="float64"))
    inner_loop = InnerLoop(num_steps, second_order=True)
    return GradientBasedMethod(learner, rule, inner_loop, objective=REGRESSION, **options)


def vector_support(num_images=6, num_inputs=3, num_way=2, dtype="float64", seed=7):
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(num_images, num_inputs))
    return Support(tf.constant(inputs, dtype), tf.constant(np.arange(num_images) % num_way))


def glyph_like_classes(num_classes=12, images_per_class=20, size=16, seed=3, first=0):
    """Returns classes that can be told apart: each has a random pattern, and images have noise."""
    generator = np.random.default_rng(seed)
    patterns = generator.integers(0, 2, (num_classes, 4, 4)) * 200
    patterns = patterns.repeat(size // 4, axis=1).repeat(size // 4, axis=2)
    noise = generator.integers(0, 56, (num_classes, images_per_class, size, size))
    images = (patterns[:, np.newaxis] + noise).astype(np.uint8)
    return ClassImages(
        images.reshape(-1, size, size, 1),
        np.full([num_classes], images_per_class, np.int64),
        tuple(f"class_{first + i:02d}" for i in range(num_classes)),
    )


class ToySource(Source):
    """Eight such classes in each split, different ones in each. `asked` lists the splits read."""

    part = Part("toys", "Toy images for tests", "", ImageOptions)
    name = "toys"
    image_shape = (16, 16, 1)
    asked: ClassVar[list] = []

    @classmethod
    def from_options(cls, options):
        return ImageTasks.of(cls(), options)

    def prepare(self):
        pass

    def load(self, split):
        self.asked.append(split)
        first = 8 * SPLITS.index(split)
        return glyph_like_classes(num_classes=8, seed=len(split), first=first)

    def class_names(self, split):
        first = 8 * SPLITS.index(split)
        return tuple(f"class_{first + i:02d}" for i in range(8))

    def counts(self, split):
        return SplitCounts(8, 160, 20)

    def fingerprint_of(self, split):
        return f"toys/{split}"

    def channel_statistics(self):
        return np.array([100.0]), np.array([50.0])

    def describe(self, split=None):
        return "toys"


class ToyStream(StreamTasks):
    """Streams of such images."""

    part = Part("toy_stream", "Streams of toy images for tests", "", StreamOptions)

    @classmethod
    def from_options(cls, options):
        return cls.of_stream(ToySource(), options)


SMALL = {
    "source": "toys",
    "num_way": 3,
    "num_shot": 2,
    "num_query": 3,
    "normalization": "unit",
    "max_steps": 4,
    "checkpoint_every": 2,
    "validate_every": 2,
    "validation_episodes": 2,
    "deterministic": False,
}


SINE = {"source": "sine", "learner": "mlp", "rule": "sgd", "num_steps": 1, "hidden_layers": (4,)}
"""The settings of the smallest run, on functions."""

CONV4 = {"learner": "conv4", "filters": 4}
MLP = {"learner": "mlp", "hidden_layers": (16,), "mlp_batch_normalization": True}
"""A network with batch norm, whose graph is made in a third of the time."""


def settings(run_dir=None, **said):
    """Returns settings of a small run on toy images. The default network is `MLP`."""
    said = {**SMALL, **said}
    method = METHODS[said.get("method", METHODS.default)].part
    if "learner" in method.needs and "learner" not in said:
        said = {**(CONV4 if method.name == "relation_networks" else MLP), **said}
    return make_settings(said).placed(run_dir)


def image_episodes(spec=None, split="train", seed=0):
    """Returns episodes of such classes, with pixels divided by 255."""
    sampler = EpisodeSampler(glyph_like_classes(), split, spec or EpisodeSpec(5, 2, 3), seed=seed)
    return ImageEpisodes(sampler, Normalization((0.0,), (255.0,)))


def zero_head(method):
    """Sets the linear layer of c_0 to zero, so that only the support set tells classes apart."""
    start = method.c_0.numpy().copy()
    for block in method.learner.parameter_blocks:
        if block.name.startswith("linear"):
            start[block.start : block.start + block.size] = 0.0
    method.c_0.assign(start)


def save(served, folder, facts=None):
    """Writes a model without reading it back, which takes most of the time of `save_method`.

    tests/serving/test_saved_model.py tests the reading.
    """
    with mock.patch.object(saved_model, "check_reload"):
        return saved_model.save_method(served, folder, facts)


def export_prototypes(folder):
    """Writes a model that compares features, of images of 8 x 8 pixels."""
    seed(1)
    flat = [keras.layers.Flatten(), keras.layers.Dense(32, use_bias=False)]
    network = keras.Sequential([keras.Input((8, 8, 1)), *flat])
    method = PrototypicalNetworks(network, training_way=5)
    save(ServedMethod(method, Normalization((0.0,), (255.0,)), (8, 8, 1), None), folder)


def contents(folder):
    """Returns what is at each path below a folder: the bytes, the target of a link, or None."""

    def at(path):
        if path.is_symlink():
            return path.readlink()
        return path.read_bytes() if path.is_file() else None

    return {path.relative_to(folder).as_posix(): at(path) for path in folder.rglob("*")}


def files_in(folder):
    """Returns the paths of all files in a folder, relative to it."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
