"""From settings to the objects they name: a source, streams of episodes, a method."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.data.catalogue import make_source
from tf_metalstm.data.episodes import EpisodeSampler, episode_dataset
from tf_metalstm.data.preprocessing import Augmentation, Normalization, make_normalization
from tf_metalstm.data.sources.base import Source
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.learners.catalogue import make_learner
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.rules.catalogue import make_rule
from tf_metalstm.settings import DataSettings, Settings
from tf_metalstm.training.checkpoints import RunCheckpoints


def resolve(settings: Settings) -> Settings:
    """Fills in what follows from other settings, so that run.flags says it."""
    if settings.method.num_outputs is not None:
        return settings
    method = dataclasses.replace(settings.method, num_outputs=settings.data.num_way)
    return dataclasses.replace(settings, method=method)


def build_source(data: DataSettings) -> Source:
    """Returns the source of images; nothing is read yet."""
    options: dict = {}
    if data.source == "omniglot":
        options = {"split": data.omniglot_split, "rotations": data.omniglot_rotations}
    if data.source != "glyphs":
        options["skip_corrupt"] = data.skip_corrupt
    return make_source(
        data.source, data_dir=data.data_dir, prepared_dir=data.prepared_dir, **options
    )


def build_sampler(data: DataSettings, source: Source, split: str, seed: int) -> EpisodeSampler:
    """Returns the sampler of a split; reads its images."""
    return EpisodeSampler(
        source.load(split),
        split,
        EpisodeSpec(data.num_way, data.num_shot, data.num_query),
        seed=seed,
        # Permutations serve training; a fixed list of episodes is drawn independently.
        class_sampling=data.class_sampling if split == "train" else "independent",
        source_name=data.source,
    )


def training_episodes(
    settings: Settings, source: Source, normalization: Normalization, start: int
) -> tf.data.Dataset:
    """Returns the endless stream of training episodes from number `start` on."""
    data, training = settings.data, settings.training
    return episode_dataset(
        build_sampler(data, source, "train", training.seed),
        normalization,
        Augmentation(data.augmentation) if data.augmentation else None,
        start=start,
        episodes_per_step=training.episodes_per_step,
    )


def validation_episodes(
    settings: Settings, source: Source, normalization: Normalization
) -> tf.data.Dataset:
    """Returns the fixed list of validation episodes."""
    return episode_dataset(
        build_sampler(settings.data, source, "validation", settings.evaluation.evaluation_seed),
        normalization,
        num_episodes=settings.training.validation_episodes,
        episodes_per_step=settings.training.episodes_per_step,
    )


def build_normalization(data: DataSettings, source: Source) -> Normalization:
    """Returns the normalization of pixels; "standard" prepares the source."""
    return make_normalization(data.normalization, source)


def build_method(settings: Settings, image_shape: tuple[int, int, int]) -> GradientBasedMethod:
    """Returns the method with fresh weights, drawn from --seed."""
    method, data = settings.method, settings.data
    if method.num_outputs is not None and data.num_way > method.num_outputs:
        raise ValueError(
            f"--num_way={data.num_way} but the learner has {method.num_outputs} outputs: "
            "train with more ways, or lower --num_way."
        )
    keras.utils.set_random_seed(settings.training.seed)
    options: dict = {}
    if method.learner == "conv4":
        options = {
            "filters": method.filters,
            "initialization": method.learner_initialization,
            "statistics_momentum": method.statistics_momentum,
        }
    learner = make_learner(
        method.learner, image_shape, method.num_outputs or data.num_way, **options
    )
    rule = make_rule(
        method.rule,
        hidden_units=method.hidden_units,
        gate_feedback=method.gate_feedback,
        preprocessing_scale=method.preprocessing_scale,
    )
    inner_loop = InnerLoop(
        num_steps=method.num_steps,
        batch_size=method.support_batch_size,
        second_order=method.second_order,
        gradient_divisor=method.gradient_divisor,
    )
    return GradientBasedMethod(learner, rule, inner_loop, method.query_normalization)


def load_method(settings: Settings, source: Source) -> tuple[GradientBasedMethod, RunCheckpoints]:
    """Returns the trained method of --run_dir and the checkpoints it was read from.

    Raises:
        FileNotFoundError: the run has no checkpoint of the kind asked for.
    """
    method = build_method(settings, source.image_shape)
    checkpoints = RunCheckpoints(settings.run_dir or "", method)
    which = settings.evaluation.checkpoint
    if not checkpoints.restore(which):
        when = "validation" if which == "best" else "checkpoint"
        raise FileNotFoundError(
            f"--run_dir={settings.run_dir} holds no {which} weights yet: they appear with the "
            f"first {when} of the training run. Train longer, or give --checkpoint="
            f"{'last' if which == 'best' else 'best'}."
        )
    return method, checkpoints


def build_strategy(name: str) -> tf.distribute.Strategy:
    """Returns the distribution strategy: "none", or "mirrored" over all GPUs (else all CPUs)."""
    if name == "none":
        return tf.distribute.get_strategy()
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])
