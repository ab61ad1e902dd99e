"""The initial weights of a training: random, or the weights of another run or an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tf_metalstm import experiment
from tf_metalstm.construction import build_tasks
from tf_metalstm.data.tasks import EpisodeTasks, ImageTasks
from tf_metalstm.exported import (
    exported_fingerprint,
    exported_step,
    is_exported,
    load_exported,
)
from tf_metalstm.methods.base import Method
from tf_metalstm.options import OptionError, options_of
from tf_metalstm.settings import Settings
from tf_metalstm.task_facts import read_facts
from tf_metalstm.training.checkpoints import BEST, checkpoint_steps, fingerprint_of_weights

# If a run starts from the network of another method, both runs must agree on these families. If
# both have the same method, they must agree on all families.
_OF_THE_NETWORK = ("source", "learner")


def start_method(method: Method, pretrained: Settings | None = None) -> dict[str, Any] | None:
    """Sets the initial weights of a new method.

    Args:
        method: the new method.
        pretrained: settings of another run, whose best weights are used, or of an exported model.
            `check_pretrained` must have checked them. None for random weights.

    Returns:
        {"run", "step", "weights"}: name of the other run, number of updates of its weights, and
        their fingerprint. None for random weights.

    Raises:
        ValueError: the method cannot use these weights.
        FileNotFoundError: the other run has no weights.
    """
    if pretrained is None:
        method.begin(None)
        return None
    folder = Path(pretrained.run_dir or "")
    if is_exported(folder):
        method.begin(load_exported(folder))
        weights: str | None = exported_fingerprint(folder)
        return {"run": folder.name, "step": exported_step(folder), "weights": weights}
    trained = experiment.load_run(pretrained)
    weights = fingerprint_of_weights(folder, step=trained.step)
    method.begin(trained.method)
    return {"run": folder.name, "step": trained.step, "weights": weights}


def check_pretrained(settings: Settings, pretrained: Settings) -> None:
    """Checks that a run can start from the weights of another run.

    Args:
        settings: settings of the new run.
        pretrained: settings of the other run, or of an exported model.

    Raises:
        ValueError: it cannot; the error says what to change.
        FileNotFoundError: the other run has no weights yet.
    """
    own, other = settings.method, pretrained.method
    where = f"pretrained_run_dir={pretrained.run_dir}"
    allowed = (own, *settings.member("method").starts_from)
    if other not in allowed:
        raise ValueError(
            f"{where} is a run of method={other}: choose a run of {' or '.join(allowed)}."
        )
    folder = Path(pretrained.run_dir or "")
    if not is_exported(folder) and not checkpoint_steps(folder / BEST):
        raise FileNotFoundError(
            f"{where} has no weights yet: training writes them at its first validation. Train that "
            "run longer."
        )
    if own == other:
        names = _to_compare(settings, tuple(settings.chosen))
    else:
        free = settings.member("method").differs_from_start
        names = [each for each in _to_compare(settings, _OF_THE_NETWORK) if each not in free]
    for name in names:
        value, trained_with = settings.get(name), pretrained.get(name)
        if value != trained_with:
            raise OptionError(
                name,
                f"is {_text(value)} in this run, but {where} was trained with "
                f"{_text(trained_with)}: use the same value.",
            )
    _check_inputs(settings, pretrained, where)


def _to_compare(settings: Settings, families: tuple[str, ...]) -> list[str]:
    names = [family for family in families if family in settings.chosen]
    for family in tuple(names):
        options = options_of(settings.member(family).part.options)
        names += [name for name, each in options.items() if each.alike and name in settings.values]
    return names


def _check_inputs(settings: Settings, pretrained: Settings, where: str) -> None:
    tasks, trained_on = build_tasks(settings), build_tasks(pretrained)
    if not isinstance(tasks, EpisodeTasks) or not isinstance(trained_on, EpisodeTasks):
        return
    if tasks.input_shape != trained_on.input_shape:
        raise ValueError(
            f"{where} was trained on inputs of the shape {trained_on.input_shape}, but this run "
            f"has the shape {tasks.input_shape}: use the same image_size."
        )
    facts = read_facts(pretrained.run_dir or "")  # an export has none
    if isinstance(tasks, ImageTasks) and facts is not None:
        try:
            tasks.check_unseen(facts, ["validation", "test"])
        except ValueError as error:
            raise ValueError(f"{where} cannot be the start: {error}") from error


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
