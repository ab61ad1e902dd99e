"""Builds the objects that settings describe: tasks, and a method with new weights."""

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
    """Returns the tasks of the chosen source; reads no data yet.

    Raises:
        OptionError: the learner does not allow these images or this normalization.
    """
    settings = _with_needs_of_learner(settings)
    return settings.member("source").from_options(settings.of_member("source"))


def resolve(settings: Settings, tasks: Tasks) -> Settings:
    """Returns the settings with values for the options that method and learner derive.

    So run.flags has a value where the user gave none.
    """
    settings = _with_needs_of_learner(settings)
    derived = settings.member("method").settled(settings.of_member("method"), tasks)
    return _filled(settings, {"normalization": "standard", **derived})


def _with_needs_of_learner(settings: Settings) -> Settings:
    """Returns the settings with the learner's values for options of images that are not set."""
    if "learner" not in settings.chosen:
        return settings
    learner, options = settings.member("learner"), settings.of_member("learner")
    learner.check_images(options, settings.get("normalization"))
    return _filled(settings, learner.settled(options, settings.source))


def _filled(settings: Settings, derived: dict[str, Any]) -> Settings:
    missing = {
        name: value
        for name, value in derived.items()
        if name in settings.values and settings.values[name] is None
    }
    return settings.changed(**missing) if missing else settings


def build_method(settings: Settings, tasks: Any) -> Method:
    """Returns the method with new weights, drawn from the seed.

    Args:
        settings: settings of the run.
        tasks: tasks of the run, or the facts about them that the run keeps (`TaskFacts`).
    """
    keras.utils.set_random_seed(settings.training.seed)
    method = settings.member("method")
    return method.from_options(settings.of_member("method"), Builder(settings, tasks))


class Builder:
    """Builds the parts that a method needs; implements `tf_metalstm.methods.base.Builder`.

    Args:
        settings: settings of the run.
        tasks: tasks of the run, or facts about them. They have `objective` and, depending on their
            kind, `input_shape`, `num_outputs`, `training_way`, `num_training_classes`, or `blocks`
            and `problem`.
    """

    def __init__(self, settings: Settings, tasks: Any) -> None:
        self._settings = settings
        self.tasks = tasks

    def network(self, num_outputs: int, statistics_momentum: float) -> keras.Model:
        """Returns the network of the learner.

        Args:
            num_outputs: number of outputs of its last layer.
            statistics_momentum: momentum of batch norm, if the options do not set it.
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
        """Returns the number of outputs of the learner.

        Args:
            chosen: number in the options; None for the number that the tasks need.

        Raises:
            OptionError: the tasks need more outputs.
        """
        needed = self.tasks.num_outputs
        if chosen is not None and needed > chosen:
            raise OptionError(
                "num_way",
                f"is {needed} but the learner has {chosen} outputs: train with more ways, or lower "
                "num_way.",
            )
        return chosen or needed
