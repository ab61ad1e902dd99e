"""Where training begins: at random numbers, or at the weights of another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tf_metalstm import experiment
from tf_metalstm.construction import build_tasks
from tf_metalstm.data.tasks import EpisodeTasks
from tf_metalstm.exported import (
    exported_fingerprint,
    exported_step,
    is_exported,
    load_exported,
)
from tf_metalstm.methods.base import Method
from tf_metalstm.options import OptionError, options_of
from tf_metalstm.settings import Settings
from tf_metalstm.training.checkpoints import BEST, best_fingerprint, checkpoint_steps

# Families that two runs must agree on where one begins at the network of the other; where it takes
# all that the other has learned, they must agree on all families.
_OF_THE_NETWORK = ("source", "learner")


def start_method(method: Method, pretrained: Settings | None = None) -> dict[str, Any] | None:
    """Sets the weights of a fresh method to those that its run starts from.

    Args:
        method: fresh.
        pretrained: settings of the run whose best weights it begins at, or of an exported model,
            checked by `check_pretrained`; None for random numbers.

    Returns:
        The name of that run, the update that its weights are of, and their fingerprint, {"run",
        "step", "weights"}; or None.

    Raises:
        ValueError: the method cannot begin there.
        FileNotFoundError: the other run has no weights.
    """
    if pretrained is None:
        method.begin(None)
        return None
    folder = Path(pretrained.run_dir or "")
    if is_exported(folder):
        method.begin(load_exported(folder))
        step, weights = exported_step(folder), exported_fingerprint(folder)
        return {"run": folder.name, "step": step, "weights": weights}
    trained = experiment.load_run(pretrained)
    method.begin(trained.method)
    return {"run": folder.name, "step": trained.step, "weights": best_fingerprint(folder)}


def check_pretrained(settings: Settings, pretrained: Settings) -> None:
    """Checks that a run may begin at the weights of another one.

    Args:
        settings: of the run that begins.
        pretrained: of the other, or of an exported model.

    Raises:
        ValueError: it may not; the error says what to change.
        FileNotFoundError: the other one has no weights yet.
    """
    own, other = settings.method, pretrained.method
    where = f"pretrained_run_dir={pretrained.run_dir}"
    allowed = (own, *settings.member("method").starts_from)
    if other not in allowed:
        raise ValueError(f"{where} is a run of method={other}: give one of {' or '.join(allowed)}.")
    folder = Path(pretrained.run_dir or "")
    if not is_exported(folder) and not checkpoint_steps(folder / BEST):
        raise FileNotFoundError(
            f"{where} holds no weights yet: they appear with the first validation of that run. "
            "Train it longer."
        )
    families = tuple(settings.chosen) if own == other else _OF_THE_NETWORK
    for name in _to_compare(settings, families):
        value, trained_with = settings.get(name), pretrained.get(name)
        if value != trained_with:
            raise OptionError(
                name,
                f"is {_text(value)} in this run, but {where} was trained with "
                f"{_text(trained_with)}: both need the same.",
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
            f"{where} was trained on inputs of the shape {trained_on.input_shape}, but those of "
            f"this run are {tasks.input_shape}: both need the same image_size."
        )


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
