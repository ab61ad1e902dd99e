"""From settings to the objects they name: tasks, streams of episodes, a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_metalstm.construction import (
    bounds,
    build_method,
    image_tasks,
    scale_kernels,
    start_c_0,
    start_weights,
)
from tf_metalstm.data.catalogue import make_source
from tf_metalstm.data.episodes import Episodes, episode_dataset
from tf_metalstm.data.sine import SineTasks
from tf_metalstm.data.sources.glyphs import Glyphs
from tf_metalstm.data.tasks import ImageTasks, Tasks
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.methods.base import FewShotMethod
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.settings import DataSettings, Settings
from tf_metalstm.training.checkpoints import RunCheckpoints

# What two runs must have alike for the network of one to be that of the other,
_NETWORK = ("learner", "filters", "downsampling", "features", "batch_norm_scale")
# for its linear layer to mean the same classes,
_CLASSES = ("omniglot_split", "omniglot_rotations")
# and for what the rule has learned to mean the same.
_RULE = ("rule", "hidden_units", "gate_feedback", "preprocessing_scale")


def build_tasks(data: DataSettings) -> Tasks:
    """Returns where episodes come from; nothing is read yet."""
    has_files = data.source not in (SineTasks.name, Glyphs.name)
    if data.image_size is not None and not (has_files and data.image_size > 0):
        raise ValueError(
            f"--image_size={data.image_size} with --source={data.source}: it takes a positive "
            "number of pixels, and a source that is read from image files."
        )
    if data.source == SineTasks.name:
        return SineTasks(
            data.num_shot,
            data.num_query,
            bounds("sine_frequencies", data.sine_frequencies),
            bounds("sine_phases", data.sine_phases),
        )
    options: dict = {}
    if data.source == "omniglot":
        options = {"split": data.omniglot_split, "rotations": data.omniglot_rotations}
    if has_files:
        options["skip_corrupt"] = data.skip_corrupt
    if data.image_size is not None:
        options["image_size"] = data.image_size
    source = make_source(
        data.source, data_dir=data.data_dir, prepared_dir=data.prepared_dir, **options
    )
    return ImageTasks(
        source,
        EpisodeSpec(data.num_way, data.num_shot, data.num_query),
        data.normalization,
        data.augmentation,
        data.class_sampling,
    )


def training_episodes(settings: Settings, tasks: Tasks, start: int) -> tf.data.Dataset:
    """Returns the endless stream of training episodes, or batches, from number `start` on."""
    training = settings.training
    if settings.method.method == "nearest_neighbor":  # from batches of all classes
        images = image_tasks(tasks, settings.method.method)
        wanted, there = settings.method.num_training_classes, images.num_training_classes
        if wanted is not None and wanted != there:
            raise ValueError(
                f"--num_training_classes={wanted}, but {tasks.name}/train has {there} classes: "
                "give that number, or leave the flag out."
            )
        episodes: Episodes = images.joint_batches(training.joint_batch_size, training.seed)
    else:
        episodes = tasks.episodes("train", training.seed, training=True)
    return episode_dataset(
        episodes,
        start=start,
        episodes_per_step=training.episodes_per_step,
    )


def validation_episodes(settings: Settings, tasks: Tasks) -> tf.data.Dataset:
    """Returns the fixed list of validation episodes."""
    return episode_dataset(
        tasks.episodes("validation", settings.evaluation.evaluation_seed),
        num_episodes=settings.training.validation_episodes,
        episodes_per_step=settings.training.episodes_per_step,
    )


def load_method(settings: Settings, tasks: Tasks) -> tuple[FewShotMethod, RunCheckpoints]:
    """Returns the trained method of --run_dir and the checkpoints it was read from.

    Raises:
        FileNotFoundError: the run has no checkpoint of the kind asked for.
    """
    method = build_method(settings, tasks)
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


def load_gradient_based(
    settings: Settings, tasks: Tasks
) -> tuple[GradientBasedMethod, RunCheckpoints]:
    """As `load_method`, for what needs a method that makes updates.

    Raises:
        ValueError: the run has another one.
    """
    method, checkpoints = load_method(settings, tasks)
    if not isinstance(method, GradientBasedMethod):
        raise ValueError(
            f"--run_dir={settings.run_dir} is a run of --method={settings.method.method}, which "
            "makes no updates: there are no gates to look at."
        )
    return method, checkpoints


def start_method(
    method: FewShotMethod, settings: Settings, pretrained: Settings | None = None
) -> dict[str, Any] | None:
    """Sets a fresh method to where its run begins.

    Args:
        method: fresh.
        settings: of the run that begins.
        pretrained: settings of the run whose network it begins at; None for random numbers.

    Returns:
        The name of that run and the update that its network is of, {"run", "step"}, or None.

    Raises:
        ValueError: the settings say what the method cannot do.
        FileNotFoundError: the other run has no weights.
    """
    start = None
    if pretrained is not None:
        step = _start_from_pretrained(method, settings, pretrained)
        start = {"run": Path(pretrained.run_dir or "").name, "step": step}
    if settings.method.kernel_scale != 1.0:
        scale_kernels(method, settings.method.kernel_scale)
    return start


def _start_from_pretrained(method: FewShotMethod, settings: Settings, pretrained: Settings) -> int:
    if not method.weights:
        raise ValueError(
            f"--pretrained_run_dir has no use with --method={settings.method.method}, which has no "
            "weights: leave it out."
        )
    given, checkpoints = load_method(pretrained, build_tasks(pretrained.data))
    alike: dict[str, tuple[str, ...]] = {"data": ("source", "normalization"), "method": _NETWORK}
    if isinstance(method, NearestNeighbor):
        alike["data"] += _CLASSES
        alike["method"] += ("num_training_classes",)
    if type(method) is type(given) is GradientBasedMethod:
        alike["method"] += _RULE
    for group, names in alike.items():
        for name in names:
            here, there = (getattr(getattr(s, group), name) for s in (settings, pretrained))
            if here != there:
                raise ValueError(
                    f"--pretrained_run_dir was trained with --{name}={there}, but this run has "
                    f"{here}: both need the same images and the same network."
                )
    if type(method) is type(given):
        start_weights(method.weights, given)
    elif isinstance(given, NearestNeighbor) and isinstance(method, GradientBasedMethod):
        start_c_0(method, given)
    elif isinstance(given, NearestNeighbor) and isinstance(method, MatchingNetworks):
        start_weights(method.embedding.weights, given)
    else:
        raise ValueError(
            f"--pretrained_run_dir={pretrained.run_dir} is a run of "
            f"--method={pretrained.method.method}: it has to be one of "
            f"--method={settings.method.method} too, or one of --method=nearest_neighbor."
        )
    return int(checkpoints.step.numpy())
