"""From settings to a method with fresh weights: networks, rules, and what puts them together."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from tf_metalstm.adaptation import InnerLoop
from tf_metalstm.data.tasks import ImageTasks, Tasks
from tf_metalstm.learners.catalogue import PRECISIONS, make_network
from tf_metalstm.learners.embedding import embedding_of
from tf_metalstm.learners.functional import FunctionalLearner
from tf_metalstm.methods.base import FewShotMethod
from tf_metalstm.methods.gradient_based import GradientBasedMethod
from tf_metalstm.methods.matching_networks import MatchingNetworks
from tf_metalstm.methods.nearest_neighbor import NearestNeighbor
from tf_metalstm.objectives import OBJECTIVES
from tf_metalstm.rules.base import Rule
from tf_metalstm.rules.catalogue import make_rule
from tf_metalstm.settings import METHODS, MethodSettings, Settings


def resolve(settings: Settings, tasks: Tasks) -> Settings:
    """Fills in what follows from other settings, so that run.flags says it."""
    method = settings.method
    if method.num_outputs is None:
        method = dataclasses.replace(method, num_outputs=tasks.num_outputs)
    if method.method == "nearest_neighbor":
        num_classes = _num_training_classes(method, tasks)
        method = dataclasses.replace(method, num_training_classes=num_classes)
    momentum = _statistics_momentum(method)
    method = dataclasses.replace(method, statistics_momentum=momentum)
    return dataclasses.replace(settings, method=method)


def _num_training_classes(method: MethodSettings, tasks: Tasks) -> int:
    if method.num_training_classes is not None:
        return method.num_training_classes
    return image_tasks(tasks, method.method).num_training_classes


def _statistics_momentum(method: MethodSettings) -> float:
    if method.statistics_momentum is not None:
        return method.statistics_momentum
    # Of one episode few passes leave statistics, of a training all of them.
    return 0.99 if method.method in ("nearest_neighbor", "matching_networks") else 0.05


def image_tasks(tasks: Tasks, method: str) -> ImageTasks:
    """Returns the tasks, which have to be images.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(tasks, ImageTasks):
        raise ValueError(f"--method={method} is for images, but --source={tasks.name} has none.")
    return tasks


def build_method(settings: Settings, tasks: Tasks) -> FewShotMethod:
    """Returns the method with fresh weights, drawn from --seed."""
    method = settings.method
    if method.num_outputs is not None and tasks.num_outputs > method.num_outputs:
        raise ValueError(
            f"--num_way={tasks.num_outputs} but the learner has {method.num_outputs} outputs: "
            "train with more ways, or lower --num_way."
        )
    keras.utils.set_random_seed(settings.training.seed)
    num_way = method.num_outputs or tasks.num_outputs
    if method.method == "gradient_based":
        return _gradient_based(settings, tasks, num_way)
    image_tasks(tasks, method.method)
    if method.method == "pixel_nearest_neighbor":
        return NearestNeighbor(None, num_way)
    if method.method == "nearest_neighbor":
        network = _network(method, tasks, _num_training_classes(method, tasks))
        return NearestNeighbor(network, num_way)
    if method.method == "matching_networks":
        return MatchingNetworks(
            embedding_of(_network(method, tasks, num_way)),
            num_way,
            full_context=method.full_context,
            attention_steps=method.attention_steps,
            similarity=method.similarity,
            cosine_scale=method.cosine_scale,
        )
    raise ValueError(f"--method must be one of {', '.join(METHODS)}, got {method.method!r}.")


def _gradient_based(settings: Settings, tasks: Tasks, num_way: int) -> GradientBasedMethod:
    method = settings.method
    return GradientBasedMethod(
        FunctionalLearner(_network(method, tasks, num_way)),
        _rule(method),
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
        learn_c_0=method.learn_c_0,
        learn_linear=method.learn_linear,
    )


def _network(method: MethodSettings, tasks: Tasks, num_outputs: int) -> keras.Model:
    options: dict[str, Any] = {
        "batch_norm_scale": method.batch_norm_scale,
        "statistics_momentum": _statistics_momentum(method),
        "dtype": PRECISIONS[method.learner_precision],
    }
    if method.learner == "conv4":
        options |= {
            "filters": method.filters,
            "initialization": method.learner_initialization,
            "downsampling": method.downsampling,
            "features": method.features,
            "dropout": method.dropout,
        }
    else:
        options |= {
            "hidden_layers": numbers("hidden_layers", method.hidden_layers, int),
            "batch_normalization": method.mlp_batch_normalization,
        }
    return make_network(method.learner, tasks.input_shape, num_outputs, **options)


def _rule(method: MethodSettings) -> Rule:
    if method.rule == "sgd":
        return make_rule(
            "sgd",
            rate=method.inner_rate,
            decay=method.inner_decay,
            learned=method.learn_inner_rate,
        )
    if method.rule == "meta_sgd":
        low, high = bounds("meta_sgd_rates", method.meta_sgd_rates)
        return make_rule("meta_sgd", low=low, high=high)
    return make_rule(
        method.rule,
        hidden_units=method.hidden_units,
        gate_feedback=method.gate_feedback,
        preprocessing_scale=method.preprocessing_scale,
    )


def numbers(flag: str, values: list[str], kind: type) -> list:
    """Returns the numbers that a list flag holds as text."""
    try:
        return [kind(value) for value in values]
    except ValueError as error:
        raise ValueError(
            f"--{flag} must be numbers with commas between, got {','.join(values)!r}."
        ) from error


def bounds(flag: str, values: list[str]) -> tuple[float, float]:
    """Returns the two numbers of a list flag, the lower one first."""
    found = numbers(flag, values, float)
    if len(found) != 2 or found[0] > found[1]:
        raise ValueError(
            f"--{flag} must be two numbers, LOW,HIGH, the lower one first; got {','.join(values)}."
        )
    return found[0], found[1]
