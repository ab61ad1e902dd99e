"""The only module that knows absl flags: defines them, makes settings of them, writes run.flags.

Every command defines every flag, so one flagfile works with all commands. The last value of a flag
counts: a flag that is typed after --flagfile replaces that of the file. A flag that has no effect
with the chosen parts is an error, except in the run.flags of a run, because early versions wrote
all flags there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import app, flags, logging

from tf_metalstm import ctrl_c
from tf_metalstm.argv import PARTS, RUN_FLAGS, TASKS, named_modules, wants_help
from tf_metalstm.catalogue import FAMILIES, check_owners, load_parts
from tf_metalstm.failures import reason
from tf_metalstm.files import check_is_text, given_path, print_any_name, write_atomically
from tf_metalstm.flagfiles import RECIPE, expand
from tf_metalstm.help import print_help
from tf_metalstm.options import Option, OptionError
from tf_metalstm.runs import check_is_run, check_same, check_settled
from tf_metalstm.settings import Settings, known_options, make_settings

_OWN = ("run_dir", PARTS, RECIPE, "traceback")  # flags that are not options
TAKEN = (*_OWN, *flags.FLAGS, *(f"help{kind}" for kind in ("", "full", "short", "xml")))
"""Names that no option may have: the other flags of this package, and those of absl."""


def run_command(
    main: Callable[[Settings], None],
    *,
    continues_a_run: bool,
    uses: Sequence[str] = (),
    data_for: str | None = None,
) -> None:
    """Runs a command and exits with 0, with 1 after an error message, or with 130 after Ctrl-C.

    Args:
        main: the command, a function of the settings.
        continues_a_run: whether the command works on the run in --run_dir. Its run.flags are then
            read before the command line.
        uses: names of the options that the command uses, among those that belong to no part; empty
            if it uses all. Others are an error on its command line; a flagfile may have them.
        data_for: name of the option without which the command uses no data; None if it always does.
    """
    if wants_help(sys.argv):
        print_help(sys.argv)
    print_any_name()
    command: dict[str, Settings] = {}

    def parse(argv: list[str]) -> list[str]:
        with _errors_in_one_sentence():
            load_parts(named_modules(argv))
            check_owners(TAKEN)
            expanded = expand(argv[1:])
        define_flags()
        rest = app.parse_flags_with_usage([argv[0], *expanded])
        if len(rest) > 1:
            _leave(f"Unexpected {' '.join(rest[1:])!r}: every flag must begin with --.")
        with _errors_in_one_sentence():
            command["settings"] = _read(argv, continues_a_run, uses, data_for)
        return rest

    def guarded(argv: Sequence[str]) -> None:
        del argv
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # absl's default shows messages of all libraries
        with _errors_in_one_sentence():
            main(command["settings"])

    with ctrl_c.in_one_sentence():
        app.run(guarded, flags_parser=parse)


@contextlib.contextmanager
def _errors_in_one_sentence() -> Iterator[None]:
    """Ends the process with a message if an error occurs that a user can correct."""
    try:
        yield
    except (ValueError, OSError, ArithmeticError, MemoryError, tf.errors.OpError) as error:
        if flags.FLAGS.is_parsed() and flags.FLAGS.traceback:
            raise
        _leave(_one_sentence(error))


def _one_sentence(error: Exception) -> str:
    name = type(error).__name__
    if isinstance(error, MemoryError | tf.errors.OpError):  # not a message of this package
        return f"{name}: {reason(error)}. To see where it came from, add traceback=true."
    if isinstance(error, UnicodeError):
        return f"{name}: a name or path is not UTF-8 text, which TensorFlow needs: {error}."
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{name}: {error.filename}: {error.strerror}."
    return f"{name}: {error}"


def _leave(message: str) -> None:
    sys.exit(with_dashes(message))


def with_dashes(message: str) -> str:
    """Returns a message with dashes before the names of options, as a user types them.

    The library names options without dashes: "num_way must be at least 2".

    >>> with_dashes("num_way is 7, but rule=sgd: lower num_way.")
    '--num_way is 7, but --rule=sgd: lower --num_way.'
    """
    names = sorted({*known_options(), *FAMILIES, *_OWN}, key=len, reverse=True)
    words = "|".join(rf"{name}\b" if "_" in name else rf"{name}(?==)" for name in names)
    begins = r"(?<![\w./\\',-])"
    first = rf"(?:{'|'.join(names)})(?= (?:must|does|is|are|needs|goes|cannot)\b)"
    start = rf"|^{first}|(?<=Error: ){first}|(?<=\n  )(?:{'|'.join(names)})(?=: )"
    return re.sub(rf"{begins}(?:{words})(?![/\\]){start}", lambda m: f"--{m[0]}", message)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines one flag for every option and every family; a second call adds the new ones."""
    for family in FAMILIES.values():
        if family.name in values:
            values.remove_flag_values({family.name: values[family.name]})
        names = list(family.names())
        flags.DEFINE_enum(family.name, family.default, names, family.text, flag_values=values)
    for each in known_options().values():
        if each.name not in values:
            _define(each, values)
    if "run_dir" not in values:
        text = "Folder of the run; default: a new one under runs/."
        flags.DEFINE_string("run_dir", None, text, flag_values=values)
    if PARTS not in values:
        text = "Python modules with further parts; each module has a tuple PARTS."
        flags.DEFINE_list(PARTS, [], text, flag_values=values)
    if "traceback" not in values:
        text = "Show the Python traceback of an error."
        flags.DEFINE_bool("traceback", False, text, flag_values=values)


class _Parser(flags.ArgumentParser):
    """Parses the text of a flag and checks the value."""

    def __init__(self, each: Option) -> None:
        super().__init__()
        self._each = each
        self.syntactic_help = each.expected()

    def parse(self, argument: Any) -> Any:
        value = self._each.parse(argument) if isinstance(argument, str) else argument
        try:
            self._each.check(value)
        except OptionError as error:
            raise ValueError(str(error).removeprefix(f"{self._each.name} ")) from error
        return value

    def flag_type(self) -> str:
        return self._each.expected()


class _Serializer(flags.ArgumentSerializer):
    def __init__(self, each: Option) -> None:
        self._each = each

    def serialize(self, value: Any) -> str:
        return self._each.format(value)


def _define(each: Option, values: flags.FlagValues) -> None:
    if each.kind is bool and not each.many:
        flags.DEFINE_bool(each.name, each.default, each.text, flag_values=values)
    else:
        flags.DEFINE(
            _Parser(each), each.name, each.default, each.text, values, serializer=_Serializer(each)
        )


def parse_settings(
    arguments: Sequence[str], strict: bool = True, run_dir: str | Path | None = None
) -> Settings:
    """Returns the settings of flags, which are given as on a command line.

    Args:
        arguments: the flags.
        strict: whether a flag without effect is an error.
        run_dir: folder of a trained run; its run.flags are read first.

    Raises:
        ValueError: a flag is unknown, its value is not allowed, or it has no effect.
    """
    before = [] if run_dir is None else [f"--flagfile={Path(run_dir, RUN_FLAGS)}"]
    modules = named_modules(["", *before, *arguments])
    load_parts(modules)
    values = flags.FlagValues()
    define_flags(values)
    try:
        values(["command", *expand([*before, *arguments])])
        typed = _typed(arguments, values)
    except flags.Error as error:  # commands catch ValueError, which absl's errors are not
        raise ValueError(f"{' '.join(arguments)}: {error}") from error
    settings = _settings(values, typed if strict else set(), modules)
    return settings if run_dir is None else settings.placed(run_dir)


def read_settings(run_dir: str | Path, *arguments: str) -> Settings:
    """Returns the settings of a run, changed by flags."""
    check_is_run(run_dir)
    return parse_settings(arguments, run_dir=run_dir)


def write_settings(settings: Settings, run_dir: str | Path, begun: bool = True) -> None:
    """Writes RUN_DIR/run.flags.

    Args:
        settings: settings of the run.
        run_dir: folder of the run.
        begun: whether the run has a checkpoint. If so, an older run.flags must agree with the
            settings. Otherwise it is replaced.

    Raises:
        RunMismatchError: they do not agree; the error names the differences.
    """
    path = Path(run_dir, RUN_FLAGS)
    if begun and path.is_file():
        check_same(read_settings(run_dir), settings, run_dir)
    known = known_options()
    lines = ["# The options in use."]
    if settings.modules:
        lines.append(f"--{PARTS}={','.join(settings.modules)}")
    lines += [f"--{family}={name}" for family, name in settings.chosen.items()]
    lines += [flag_line(known[name], value) for name, value in settings.values.items()]
    write_atomically(path, "\n".join(lines) + "\n")


def flag_line(each: Option, value: Any) -> str:
    """Returns the line of a flagfile that sets an option."""
    if value is None:
        return f"# --{each.name} is not set"
    return f"--{each.name}={each.format(value)}"


def _read(
    argv: list[str], continues_a_run: bool, uses: Sequence[str], data_for: str | None
) -> Settings:
    """Returns the settings of a command that was started with `argv`; flags must be parsed."""
    typed = _typed(argv[1:], flags.FLAGS)
    if not continues_a_run:
        return _settings(flags.FLAGS, typed, named_modules(argv))
    run_dir = _run_dir(flags.FLAGS) or ""
    check_is_run(run_dir)
    run_flags = expand([f"--flagfile={Path(run_dir, RUN_FLAGS)}"])
    app.parse_flags_with_usage([argv[0], *run_flags, *expand(argv[1:])])
    settings = _settings(flags.FLAGS, typed, named_modules(argv))
    on_the_line = _names(argv[1:], flags.FLAGS)
    has_facts = Path(run_dir, TASKS).is_file()  # runs of early versions need their data
    data_for = data_for if has_facts else None
    check_settled(read_settings(run_dir), settings, on_the_line, uses, data_for)
    return settings


def _settings(values: flags.FlagValues, strict: set[str], modules: Sequence[str]) -> Settings:
    names = (*FAMILIES, *known_options())
    said = {name: values[name].value for name in names if values[name].present}
    settings = make_settings(said, _run_dir(values), strict=strict)
    return dataclasses.replace(settings, modules=tuple(modules))


def _run_dir(values: flags.FlagValues) -> str | None:
    run_dir = values["run_dir"].value
    if not run_dir:
        return run_dir
    check_is_text(run_dir, "run_dir")
    return str(given_path(run_dir, "run_dir"))


def _typed(arguments: Sequence[str], values: flags.FlagValues) -> set[str]:
    """Returns the names of the flags on a command line and in its flagfiles, without run.flags."""
    return _names(expand(arguments, leave_out=RUN_FLAGS), values)


def _names(arguments: Iterable[str], values: flags.FlagValues) -> set[str]:
    """Returns the names of the options and families among arguments; does not read flagfiles."""
    names = set()
    for argument in arguments:
        match = re.match(r"--?(\w+)", argument)
        if match is None:
            continue
        name = match[1]
        if name not in values and name.startswith("no"):
            name = name.removeprefix("no")
        if name in values and name not in (*_OWN, "flagfile"):
            names.add(name)
    return names & {*FAMILIES, *known_options()}
