"""From settings to objects: tasks, and a method with fresh weights."""

from __future__ import annotations

from typing import Any

import keras

from tf_metalstm.data.tasks import Tasks
from tf_metalstm.methods.base import Method
from tf_metalstm.options import OptionError
from tf_metalstm.rules.base import Rule
from tf_metalstm.settings import Settings
from tf_metalstm.starts.base import Start


def build_tasks(settings: Settings) -> Tasks:
    """Returns where tasks come from; nothing is read yet.

    Raises:
        OptionError: the learner must not see these images, or not so.
    """
    settings = _as_the_learner_wants(settings)
    return settings.member("source").from_options(settings.of_member("source"))


def resolve(settings: Settings, tasks: Tasks) -> Settings:
    """Returns the settings with what follows for options left open, so that run.flags says it."""
    settings = _as_the_learner_wants(settings)
    follows = settings.member("method").settled(settings.of_member("method"), tasks)
    return _filled(settings, {"normalization": "standard", **follows})


def _as_the_learner_wants(settings: Settings) -> Settings:
    """Returns the settings with what the learner wants of images, where that was left open."""
    if "learner" not in settings.chosen:
        return settings
    learner, options = settings.member("learner"), settings.of_member("learner")
    learner.check_images(options, settings.get("normalization"))
    return _filled(settings, learner.settled(options, settings.source))


def _filled(settings: Settings, follows: dict[str, Any]) -> Settings:
    missing = {
        name: value
        for name, value in follows.items()
        if name in settings.values and settings.values[name] is None
    }
    return settings.changed(**missing) if missing else settings


def build_method(settings: Settings, tasks: Any) -> Method:
    """Returns the method with fresh weights, drawn from the seed.

    Args:
        settings: of the run.
        tasks: that it is for, or what a run has kept of them (`TaskFacts`).
    """
    keras.utils.set_random_seed(settings.training.seed)
    method = settings.member("method")
    return method.from_options(settings.of_member("method"), Builder(settings, tasks))


class Builder:
    """Makes the members that a method needs, as `tf_metalstm.methods.base.Builder` has it.

    Args:
        settings: of the run.
        tasks: that the method is for: with `objective`, and, as their kind has them,
            `input_shape`, `num_outputs`, `training_way`, `num_training_classes`, or `blocks` and
            `problem`.
    """

    def __init__(self, settings: Settings, tasks: Any) -> None:
        self._settings = settings
        self.tasks = tasks

    def network(self, num_outputs: int, statistics_momentum: float) -> keras.Model:
        """Returns the network of the learner.

        Args:
            num_outputs: of its last layer.
            statistics_momentum: of batch norm, where the options leave it open.
        """
        return self._settings.member("learner").from_options(
            self._settings.of_member("learner"),
            self.tasks.input_shape,
            num_outputs,
            statistics_momentum,
        )

    def rule(self) -> Rule:
        """Returns the rule, not built yet."""
        return self._settings.member("rule").from_options(self._settings.of_member("rule"))

    def start(self) -> Start:
        """Returns the start, not built yet."""
        return self._settings.member("start").from_options(self._settings.of_member("start"))

    def num_outputs(self, chosen: int | None) -> int:
        """Returns how many outputs a learner gets.

        Args:
            chosen: what the options say; None for as many as the tasks need.

        Raises:
            OptionError: the tasks need more than were chosen.
        """
        needed = self.tasks.num_outputs
        if chosen is not None and needed > chosen:
            raise OptionError(
                "num_way",
                f"is {needed} but the learner has {chosen} outputs: train with more ways, or lower "
                "num_way.",
            )
        return chosen or needed
