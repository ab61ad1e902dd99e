"""Checks which settings of a run have changed since it began, and which may change."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from tf_metalstm.argv import RUN_FLAGS
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.options import OptionError, options_of
from tf_metalstm.settings import ALWAYS, Settings, UnusedOptionError, known_options

_UNKNOWN = object()

# Images of another source are normalized as in the training.
_OF_EVERY_SOURCE = ("normalization",)


class RunMismatchError(ValueError):
    """A run directory belongs to a run with other settings."""


def check_is_run(run_dir: str | Path | None) -> None:
    """Checks that a folder is the folder of a run.

    Raises:
        ValueError: there is no name of a folder.
        FileNotFoundError: the folder is not that of a run.
    """
    if not run_dir:
        raise ValueError("The run is missing: set run_dir to the folder that train wrote.")
    if not Path(run_dir, RUN_FLAGS).is_file():
        raise FileNotFoundError(
            f"run_dir={run_dir} has no {RUN_FLAGS}: expected a folder written by "
            "python -m tf_metalstm.train."
        )


def differences(old: Settings, new: Settings) -> dict[str, tuple[Any, Any]]:
    """Returns the changes between two starts of a run that are not allowed: name -> (before, now).

    An option that only one of the two has does not count, because then a part differs, which is
    reported instead.
    """
    known = known_options()
    changed = {}
    for name in {**old.said(), **new.said()}:
        before, now = (s.said().get(name, _UNKNOWN) for s in (old, new))
        if _UNKNOWN in (before, now) and name not in FAMILIES:
            continue
        if before != now and (name in FAMILIES or not known[name].may_change):
            changed[name] = (old.get(name), new.get(name))
    return changed


def check_same(old: Settings, new: Settings, run_dir: str | Path) -> None:
    """Checks that a run continues with the settings that it began with.

    Raises:
        RunMismatchError: it does not; the error names the differences.
    """
    different = differences(old, new)
    if different:
        lines = "".join(
            f"\n  {name}: the run has {_text(before)}, now {_text(now)}"
            for name, (before, now) in different.items()
        )
        raise RunMismatchError(
            f"{run_dir} belongs to a run with other settings:{lines}\n"
            "Use the same flags to continue the run, or choose another run_dir."
        )


def changed_settings(trained: Settings, settings: Settings) -> dict[str, Any]:
    """Returns the settings of parts that differ from those of the training, by name.

    The size of a task, the number of updates and the normalization of queries are left out, because
    a report names these anyway.
    """
    named = {"num_way", "num_shot", "num_query"}
    named |= {"num_evaluation_steps", "num_steps", "query_normalization"}
    changed = changed_of_parts(trained, settings)
    return {name: now for name, now in changed.items() if name not in named}


def changed_of_parts(trained: Settings, settings: Settings) -> dict[str, Any]:
    """Returns all settings of parts that differ from those of the training, by name."""
    known = known_options()
    common = {name for owner in ALWAYS for name in options_of(owner)}
    return {
        name: now
        for name, now in settings.said().items()
        if name not in common
        and not (name in known and known[name].may_change and name != "recompute")
        and now != trained.get(name)
    }


def check_settled(
    trained: Settings,
    settings: Settings,
    typed: Set[str] = frozenset(),
    uses: Sequence[str] = (),
    data_for: str | None = None,
) -> None:
    """Checks that a command changes no setting that was fixed when the training began.

    Args:
        trained: settings of the training.
        settings: settings of the command.
        typed: names of the flags on the command line.
        uses: options that the command uses, among those that belong to no part.
        data_for: the option without which the command uses no data; None if it always does.

    Raises:
        OptionError: an option was fixed or has no effect; the error names it.
    """
    run_dir = settings.run_dir
    for family in settings.chosen:
        if family != "source" and settings.chosen[family] != trained.chosen.get(family):
            raise OptionError(
                family,
                f"is {trained.chosen.get(family)} in the run in {run_dir} and cannot be changed to "
                f"{settings.chosen[family]} after the training: leave it out.",
            )
    if trained.get("num_steps") != settings.get("num_steps"):
        raise OptionError(
            "num_steps",
            f"is the number of updates in training, {trained.get('num_steps')} in the run in "
            f"{run_dir}: set num_evaluation_steps instead.",
        )
    if trained.get("learn_inner_rate") and trained.get("inner_rate") != settings.get("inner_rate"):
        raise OptionError(
            "inner_rate",
            f"is the initial value of a rate that the run in {run_dir} has learned: leave it out.",
        )
    other_source = settings.source != trained.source
    known = known_options()
    for name, now in settings.values.items():
        before = trained.values.get(name, _UNKNOWN)
        if before is _UNKNOWN or before == now or not known[name].settled:
            continue
        of_source = options_of(settings.member("source").part.options)
        if other_source and name in of_source and name not in _OF_EVERY_SOURCE:
            continue
        raise OptionError(
            name,
            f"cannot change after training began, and the run in {run_dir} began with "
            f"{_text(before)}: leave it out, or train another run.",
        )
    _check_useful(trained, settings, typed, uses)
    if data_for is not None and settings.get(data_for) is None:
        of_source = options_of(settings.member("source").part.options)
        for name in typed & {"source", *of_source}:
            raise UnusedOptionError(
                name, f"does nothing without {data_for}: the run has what is needed. Leave it out."
            )


def _check_useful(
    trained: Settings, settings: Settings, typed: Set[str], uses: Sequence[str]
) -> None:
    known = known_options()
    common = {name for owner in ALWAYS for name in options_of(owner)}
    for name in typed & known.keys():
        unused = name in common and name not in uses
        unused |= known[name].training_only and name in trained.values
        if unused or name in settings.member("method").idle_after_training:
            raise UnusedOptionError(
                name,
                f"does nothing here: the training of {settings.run_dir} is over. Leave it out.",
            )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "nothing"
    return repr(value)
