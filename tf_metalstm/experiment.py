"""From settings to the objects they name: tasks, streams of episodes, a method."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.data.catalogue import make_source
from tf_metalstm.data.episodes import episode_dataset
from tf_metalstm.data.sine import SineTasks
from tf_metalstm.data.tasks import ImageTasks, Tasks
from tf_metalstm.episode import EpisodeSpec
from tf_metalstm.learners.catalogue import PRECISIONS, make_learner
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.objectives import OBJECTIVES
from tf_metalstm.rules.base import Rule
from tf_metalstm.rules.catalogue import make_rule
from tf_metalstm.settings import DataSettings, MethodSettings, Settings
from tf_metalstm.training.checkpoints import RunCheckpoints


def resolve(settings: Settings, tasks: Tasks) -> Settings:
    """Fills in what follows from other settings, so that run.flags says it."""
    if settings.method.num_outputs is not None:
        return settings
    method = dataclasses.replace(settings.method, num_outputs=tasks.num_outputs)
    return dataclasses.replace(settings, method=method)


def build_tasks(data: DataSettings) -> Tasks:
    """Returns where episodes come from; nothing is read yet."""
    if data.source == SineTasks.name:
        return SineTasks(
            data.num_shot,
            data.num_query,
            _bounds("sine_frequencies", data.sine_frequencies),
            _bounds("sine_phases", data.sine_phases),
        )
    options: dict = {}
    if data.source == "omniglot":
        options = {"split": data.omniglot_split, "rotations": data.omniglot_rotations}
    if data.source != "glyphs":
        options["skip_corrupt"] = data.skip_corrupt
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
    """Returns the endless stream of training episodes from number `start` on."""
    training = settings.training
    return episode_dataset(
        tasks.episodes("train", training.seed, training=True),
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


def build_method(settings: Settings, tasks: Tasks) -> GradientBasedMethod:
    """Returns the method with fresh weights, drawn from --seed."""
    method = settings.method
    if method.num_outputs is not None and tasks.num_outputs > method.num_outputs:
        raise ValueError(
            f"--num_way={tasks.num_outputs} but the learner has {method.num_outputs} outputs: "
            "train with more ways, or lower --num_way."
        )
    keras.utils.set_random_seed(settings.training.seed)
    return GradientBasedMethod(
        _build_learner(method, tasks),
        _build_rule(method),
        InnerLoop(
            num_steps=method.num_steps,
            batch_size=method.support_batch_size,
            second_order=method.second_order,
            gradient_divisor=method.gradient_divisor,
            recompute=method.recompute,
        ),
        method.query_normalization,
        num_evaluation_steps=method.num_evaluation_steps,
        objective=OBJECTIVES[tasks.objective],
        vectorize_episodes=settings.training.vectorize_episodes,
    )


def _build_learner(method: MethodSettings, tasks: Tasks) -> FunctionalLearner:
    options: dict[str, Any] = {
        "batch_norm_scale": method.batch_norm_scale,
        "statistics_momentum": method.statistics_momentum,
        "dtype": PRECISIONS[method.learner_precision],
    }
    if method.learner == "conv4":
        options |= {
            "filters": method.filters,
            "initialization": method.learner_initialization,
            "downsampling": method.downsampling,
            "features": method.features,
        }
    else:
        options |= {
            "hidden_layers": _numbers("hidden_layers", method.hidden_layers, int),
            "batch_normalization": method.mlp_batch_normalization,
        }
    num_outputs = method.num_outputs or tasks.num_outputs
    return make_learner(method.learner, tasks.input_shape, num_outputs, **options)


def _build_rule(method: MethodSettings) -> Rule:
    if method.rule == "sgd":
        return make_rule("sgd", rate=method.inner_rate, learned=method.learn_inner_rate)
    if method.rule == "meta_sgd":
        low, high = _bounds("meta_sgd_rates", method.meta_sgd_rates)
        return make_rule("meta_sgd", low=low, high=high)
    return make_rule(
        method.rule,
        hidden_units=method.hidden_units,
        gate_feedback=method.gate_feedback,
        preprocessing_scale=method.preprocessing_scale,
    )


def _numbers(flag: str, values: list[str], kind: type) -> list:
    """Returns the numbers that a list flag holds as text."""
    try:
        return [kind(value) for value in values]
    except ValueError as error:
        raise ValueError(
            f"--{flag} must be numbers with commas between, got {','.join(values)!r}."
        ) from error


def _bounds(flag: str, values: list[str]) -> tuple[float, float]:
    """Returns the two numbers of a list flag, the lower one first."""
    numbers = _numbers(flag, values, float)
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ValueError(
            f"--{flag} must be two numbers, LOW,HIGH, the lower one first; got {','.join(values)}."
        )
    return numbers[0], numbers[1]


def load_method(settings: Settings, tasks: Tasks) -> tuple[GradientBasedMethod, RunCheckpoints]:
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
