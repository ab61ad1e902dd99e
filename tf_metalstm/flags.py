"""The only place that knows absl flags: definitions, from flags to settings, run.flags.

Every command defines every flag, so that one flagfile serves all of them. The last
value of a flag wins: what is typed after --flagfile overrides the file.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from tf_metalstm.files import write_atomically
from tf_metalstm.settings import GROUPS, Settings

# In the folder of a run: what it was trained with, and what `search` has found for it.
RUN_FLAGS, FOUND_FLAGS = "run.flags", "found.flags"

_DEFINERS: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


class RunMismatchError(ValueError):
    """A run directory belongs to a run with other settings."""


def run_command(main: Callable[[Settings], None], *, continues_a_run: bool) -> None:
    """Runs a command and exits: 0, or 1 after a message that says what to do.

    Args:
        main: the command, a function of the settings.
        continues_a_run: the command works on the finished or interrupted run in --run_dir,
            whose settings are read before what was typed.
    """
    define_flags()
    for field in _fields():  # so that --helpshort, which knows the main module alone, lists them
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[field.name])

    def parse(argv: list[str]) -> list[str]:
        rest = app.parse_flags_with_usage(argv)
        file = Path(flags.FLAGS.run_dir or "", RUN_FLAGS)
        if continues_a_run and flags.FLAGS.run_dir and file.is_file():
            rest = app.parse_flags_with_usage([argv[0], f"--flagfile={file}", *argv[1:]])
        return rest

    def guarded(argv: Sequence[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # absl's default tells of every library
        try:
            if len(argv) > 1:
                raise ValueError(f"Unexpected {' '.join(argv[1:])!r}: every flag begins with --.")
            settings = settings_from_flags()
            if continues_a_run:
                _check_is_run(settings.run_dir)
                check_settled(settings)
            main(settings)
        except (ValueError, OSError, ArithmeticError) as error:
            if flags.FLAGS.traceback:
                raise
            sys.exit(f"{type(error).__name__}: {error}")

    app.run(guarded, flags_parser=parse)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one flag for every setting; doing so again changes nothing."""
    for field in _fields():
        if field.name not in values:
            _define(field, values)
    if "traceback" not in values:
        flags.DEFINE_bool("traceback", False, "Show where an error came from.", flag_values=values)


def settings_from_flags(values: flags.FlagValues = flags.FLAGS) -> Settings:
    """Returns the settings that the parsed flags say."""
    groups = {
        name: group(**{field.name: values[field.name].value for field in dataclasses.fields(group)})
        for name, group in GROUPS.items()
    }
    return Settings(**groups, run_dir=values["run_dir"].value)


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Returns the settings that flags say, as they are typed."""
    values = flags.FlagValues()
    define_flags(values)
    try:
        values(["command", *arguments])
    except flags.Error as error:  # absl's are of no kind that a command catches
        raise ValueError(f"{' '.join(arguments)}: {error}") from error
    return settings_from_flags(values)


def read_settings(run_dir: str | Path, *arguments: str) -> Settings:
    """Returns the settings that a run was started with, and on top of them what flags say."""
    settings = parse_settings([f"--flagfile={Path(run_dir, RUN_FLAGS)}", *arguments])
    return dataclasses.replace(settings, run_dir=str(run_dir))


def changed_settings(settings: Settings) -> dict[str, Any]:
    """Returns what is said of images and method that the run was not trained with, by name.

    Without the task, the updates and the way to normalize queries, which a report names anyway.
    """
    named = {"num_way", "num_shot", "num_query"}
    named |= {"num_evaluation_steps", "num_steps", "query_normalization"}
    return {name: now for name, now in _changed(settings).items() if name not in named}


def typed_flags(settings: Settings) -> list[str]:
    """Returns the flags that say all of images and method that the run was not trained with."""
    return [_flag_line(name, now) for name, now in _changed(settings).items()]


def _changed(settings: Settings) -> dict[str, Any]:
    trained = read_settings(settings.run_dir or "")
    return {
        field.name: now
        for group in ("data", "method")
        for field in dataclasses.fields(GROUPS[group])
        if not (group == "data" and field.metadata["may_change"])
        and (now := getattr(getattr(settings, group), field.name))
        != getattr(getattr(trained, group), field.name)
    }


def differences(old: Settings, new: Settings) -> list[str]:
    """Returns what a run may not change between two starts, one line a setting."""
    return [
        f"  --{field.name}: the run has {before!r}, now {after!r}"
        for name, group in GROUPS.items()
        for field in dataclasses.fields(group)
        if not field.metadata["may_change"]
        and (before := getattr(getattr(old, name), field.name))
        != (after := getattr(getattr(new, name), field.name))
    ]


def write_settings(settings: Settings, run_dir: str | Path) -> None:
    """Writes RUN_DIR/run.flags; where it is there already, the two must agree.

    Raises:
        RunMismatchError: they do not; the error names what differs.
    """
    path = Path(run_dir, RUN_FLAGS)
    if path.is_file():
        _check_same(read_settings(run_dir), settings, run_dir)
    lines = []
    for name, group in GROUPS.items():
        lines.append(f"# --- {name}")
        for field in dataclasses.fields(group):
            value = getattr(getattr(settings, name), field.name)
            lines.append(_flag_line(field.name, value))
    write_atomically(path, "\n".join(lines) + "\n")


def _flag_line(name: str, value: Any) -> str:
    if value is None:
        return f"# --{name} is not set"
    if isinstance(value, bool):
        return f"--{name}={str(value).lower()}"
    if isinstance(value, list):
        return f"--{name}={','.join(value)}"
    return f"--{name}={value}"


def _check_same(old: Settings, new: Settings, run_dir: str | Path) -> None:
    different = differences(old, new)
    if different:
        raise RunMismatchError(
            f"{run_dir} belongs to a run with other settings:\n"
            + "\n".join(different)
            + "\nGive the same flags to go on with it, or another --run_dir."
        )


def _check_is_run(run_dir: str | None) -> None:
    if run_dir is None:
        raise ValueError("Which run? Give --run_dir, the folder that train wrote.")
    if not Path(run_dir, RUN_FLAGS).is_file():
        raise FileNotFoundError(
            f"--run_dir={run_dir} holds no {RUN_FLAGS}: expected a folder written by "
            "python -m tf_metalstm.train."
        )


def check_settled(settings: Settings) -> None:
    """Checks that nothing is asked of a trained run that was settled when its training began.

    Raises:
        ValueError: something is; the error names it.
    """
    trained = read_settings(settings.run_dir or "")
    if trained.method.num_steps != settings.method.num_steps:
        raise ValueError(
            f"--num_steps={settings.method.num_steps} are the updates in training, and the run in "
            f"{settings.run_dir} has {trained.method.num_steps}: --num_evaluation_steps are those "
            "after it."
        )
    if trained.method.learn_inner_rate and trained.method.inner_rate != settings.method.inner_rate:
        raise ValueError(
            f"--inner_rate={settings.method.inner_rate} is where the rate began that the run in "
            f"{settings.run_dir} has learned: leave it out."
        )
    for name, group in GROUPS.items():
        for field in dataclasses.fields(group):
            before, now = (getattr(getattr(s, name), field.name) for s in (trained, settings))
            if field.metadata["of_start"] and before != now:
                raise ValueError(
                    f"--{field.name}={now} is settled when training begins, and the run in "
                    f"{settings.run_dir} has begun with {before}: leave it out, or train another "
                    "run."
                )


def _fields() -> Iterator[dataclasses.Field]:
    for group in (*GROUPS.values(), Settings):
        yield from (field for field in dataclasses.fields(group) if field.metadata)


def _define(field: dataclasses.Field, values: flags.FlagValues) -> None:
    owner = next(g for g in (*GROUPS.values(), Settings) if field in dataclasses.fields(g))
    kind = typing.get_type_hints(owner)[field.name]
    if isinstance(kind, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not types.NoneType)
    text, choices = field.metadata["help"], field.metadata["choices"]
    default: Any = field.default
    if kind is list:
        flags.DEFINE_list(field.name, getattr(owner(), field.name), text, flag_values=values)
    elif choices:
        flags.DEFINE_enum(field.name, default, choices, text, flag_values=values)
    else:
        _DEFINERS[kind](field.name, default, text, flag_values=values)
