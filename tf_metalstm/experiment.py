"""From settings to the objects they name: tasks, streams of episodes, a method."""

from __future__ import annotations

import tensorflow as tf

from tf_metalstm.construction import bounds, build_method, image_tasks
from tf_metalstm.data.catalogue import make_source
from tf_metalstm.data.episodes import Episodes, episode_dataset
from tf_metalstm.data.sine import SineTasks
from tf_metalstm.data.sources.glyphs import Glyphs
from tf_metalstm.data.tasks import ImageTasks, Tasks
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.methods.base import FewShotMethod
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.settings import DataSettings, Settings
from tf_metalstm.training.checkpoints import RunCheckpoints


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
