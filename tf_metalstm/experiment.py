"""Returns the objects that commands work with: streams of tasks, and a trained method."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from tf_metalstm.construction import build_method, build_tasks
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.tasks import IMAGES, PROBLEMS, EpisodeTasks, ImageTasks, Tasks
from tf_metalstm.feature_cache import list_by_features, stream_by_features
from tf_metalstm.methods.base import Method
from tf_metalstm.methods.feature_method import FeatureMethod
from tf_metalstm.methods.few_shot import FewShotMethod
from tf_metalstm.options import OptionError
from tf_metalstm.serving.served import ServedMethod
from tf_metalstm.settings import Settings
from tf_metalstm.task_facts import TaskFacts, facts_of, read_facts
from tf_metalstm.training.checkpoints import BEST, LAST, RunCheckpoints, checkpoint_steps


def training_episodes(
    settings: Settings, tasks: Tasks, start: int, method: Method | None = None
) -> tf.data.Dataset:
    """Returns the endless stream of training tasks or batches; the first has the number `start`.

    Args:
        settings: settings of the run.
        tasks: tasks of the run.
        start: number of the first task.
        method: the method to train, so that frozen features are computed once; None for images.
    """
    training = settings.training
    stream = settings.member("method").training_stream(
        settings.of_member("method"), tasks, training.seed
    )
    if method is not None:
        stream = stream_by_features(method, stream)
    return episode_dataset(stream, start=start, episodes_per_step=training.episodes_per_step)


def validation_episodes(
    settings: Settings, tasks: Tasks, method: Method | None = None
) -> tf.data.Dataset:
    """Returns the fixed list of validation tasks.

    Args:
        settings: settings of the run.
        tasks: tasks of the run.
        method: the method to train, so that frozen features are computed once; None for images.
    """
    episodes = tasks.episodes("validation", settings.evaluation.evaluation_seed)
    if isinstance(method, FeatureMethod) and method.features_are_frozen:
        episodes = list_by_features(method, episodes, settings.training.validation_episodes)
    return episode_dataset(
        episodes,
        num_episodes=settings.training.validation_episodes,
        episodes_per_step=settings.training.episodes_per_step,
    )


class TrainedRun(NamedTuple):
    """A trained method of a run.

    method: the method with its trained weights.
    checkpoints: the checkpoints that the weights were read from.
    facts: facts about the training tasks.
    """

    method: Method
    checkpoints: RunCheckpoints
    facts: TaskFacts

    @property
    def step(self) -> int:
        """Number of meta-updates after which the weights were saved."""
        return int(self.checkpoints.step.numpy())


def load_run(settings: Settings) -> TrainedRun:
    """Returns the trained method of a run, without its raw data.

    Only a run of an early version, which has no tasks.json, needs its data.

    Raises:
        FileNotFoundError: the run has no checkpoint of the chosen kind.
    """
    run_dir = settings.run_dir or ""
    facts = read_facts(run_dir) or facts_of(build_tasks(settings))
    described: Any = build_tasks(settings) if facts.kind == PROBLEMS else facts
    method = build_method(settings, described)
    checkpoints = RunCheckpoints(run_dir, method)
    which = settings.evaluation.checkpoint
    if not checkpoints.restore(which):
        raise FileNotFoundError(_no_weights(run_dir, which))
    return TrainedRun(method, checkpoints, facts)


def _no_weights(run_dir: str, which: str) -> str:
    """Returns the message for a run without weights of a kind; it recommends the other kind."""
    when, other = ("validation", LAST) if which == "best" else ("checkpoint", BEST)
    advice = "Train longer"
    if checkpoint_steps(Path(run_dir, other)):
        advice += f", or use checkpoint={'last' if other == LAST else 'best'}"
    return (
        f"run_dir={run_dir} has no {which} weights yet: training writes them at its first {when}. "
        f"{advice}."
    )


def tasks_of_run(settings: Settings, run: TrainedRun) -> Tasks:
    """Returns the tasks of the settings, for the method of a run.

    All images are normalized as in the training, also those of another source.

    Raises:
        ValueError: the tasks do not fit the method.
    """
    tasks = build_tasks(settings)
    facts = run.facts
    if not isinstance(tasks, EpisodeTasks):
        return tasks
    if tasks.input_shape != facts.input_shape:
        raise ValueError(
            f"The run in {settings.run_dir} was trained on inputs of the shape "
            f"{facts.input_shape}, but inputs of source={settings.source} have the shape "
            f"{tasks.input_shape}: choose another source, or train on this one."
        )
    most = run.method.num_outputs if isinstance(run.method, FewShotMethod) else None
    if most is not None and tasks.objective == "classification" and tasks.spec.num_way > most:
        raise OptionError(
            "num_way",
            f"is {tasks.spec.num_way} but the learner has {most} outputs: train with more ways, or "
            "lower num_way.",
        )
    has_seen = run.step > 0 or settings.get("pretrained_run_dir") is not None
    if isinstance(tasks, ImageTasks) and run.method.is_trained and has_seen:
        tasks.check_unseen(facts, [settings.evaluation.split])
    if isinstance(tasks, ImageTasks) and facts.normalization is not None:
        return tasks.normalized_by(facts.normalization)
    return tasks


def serve(run: TrainedRun) -> ServedMethod:
    """Returns the method of a run in a form that accepts pixels and any labels.

    Raises:
        ValueError: the method does not adapt to a support set.
    """
    if not isinstance(run.method, FewShotMethod):
        raise ValueError(
            "Only a method with a support set and queries can be exported as a classifier, but "
            f"this is a run of {type(run.method).__name__}: choose another run."
        )
    num_way = run.method.num_outputs
    if num_way is None and run.facts.kind != IMAGES:
        num_way = run.facts.num_outputs
    return ServedMethod(run.method, run.facts.normalization, run.facts.input_shape, num_way)
