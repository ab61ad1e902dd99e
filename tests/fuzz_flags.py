"""Parses random command lines for as long as asked.

    python tests/fuzz_flags.py --seconds 600 [--seed 0]

Flags and values come from the options: in the range, at its ends, outside, of another type, in
other forms; also unknown names, flagfiles and recipes. Each command must end with an exit code and
a sentence. If it accepts the flags, run.flags must give the same settings. Each command line is
parsed in its own process, because absl keeps the flags that it has seen.

Programs that parse by themselves (`reproduce`, `demo` and the clients) run to their end, but
without training, pages and conversions.
"""

import argparse
import contextlib
import importlib
import json
import math
import os
import pathlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import hunting
import hypothesis.strategies as st
import odd_inputs
from export_client import FirstClass, adapted, client, to_lite
from fresh_run import fresh_run
from hunting import Find

from tf_metalstm import demo, flagfiles, flags, reproduce
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.construction import build_tasks
from tf_metalstm.settings import known_options, make_settings
from tf_metalstm.tables.catalogue import TABLES
from tf_metalstm.training.schedule import Schedule

COMMANDS = ("train", "evaluate", "search", "visualize", "compare_optimizers", "export")
NEED_NO_DATA = ("sine", "quadratics")
TEXTS = ["", " ", "abc", "true", "no", "nan", "inf", "-inf", "1e400", "1_000", "0x10", "1.0", "-0"]
TEXTS += [
    "\u0663",
    "1,2",
    "1,,2",
    ",",
    "None",
    "~",
    "~nobody9",
    "a b",
    "a\nb",
    "#a",
    "--seed=1",
    "é",
]
TEXTS += [
    os.fsdecode(b"\xff"),
    "x" * 300,
    str(10**30),
    str(-(2**63)),
    "1" * 5000,
    "a=b",
    "a|b",
    "//",
]


def numbers(each):
    """Draws texts of numbers around the range of an option."""
    bounds = [b for b in vars(each.range).values() if b is not None] or [0]
    near = [b + d for b in bounds for d in (-1, -1e-9, 0, 1e-9, 1)]
    whole = [str(math.floor(n)) for n in near]
    return st.sampled_from([*whole, *map(str, near), "1", "2", "3", "7", "100"])


def values(each):
    """Draws texts for an option."""
    if each.choices is not None:
        found = st.sampled_from([*each.choices, each.choices[0].upper(), each.choices[-1][:-1]])
    elif each.kind is bool:
        found = st.sampled_from(["true", "false", "0", "1", "True", "FALSE", "yes"])
    elif each.kind in (int, float):
        found = numbers(each)
    else:
        found = st.sampled_from(TEXTS)
    if each.many:
        found = st.lists(found, max_size=4).map(",".join)
    return st.one_of(found, found, found, st.sampled_from(TEXTS))


def arguments():
    """Draws a flag with its value, as one or two arguments."""
    options = list(known_options().values())
    known = st.sampled_from(options).flatmap(
        lambda each: st.tuples(st.just(each.name), values(each))
    )
    families = st.sampled_from(list(FAMILIES.values())).flatmap(
        lambda family: st.tuples(
            st.just(family.name),
            st.sampled_from([*family.names(), "no", "", family.default.upper()]),
        )
    )
    own = {
        "run_dir": ["run", "nowhere", "run/run.flags", "", "~", "~nobody9"],
        "parts": ["", "json", "no_module", "no.module", "1", "tests", os.fsdecode(b"\xff")],
        "recipe": [*flagfiles.recipe_names()[:40:5], "omniglot", "", "../data/omniglot", "x" * 300],
        "flagfile": [
            "run/run.flags",
            "odd.flags",
            "binary.flags",
            "ring.flags",
            "nowhere",
            "",
            ".",
        ],
        "traceback": ["false", "maybe"],
        "verbosity": ["-1", "x"],
        "unknown": ["1"],
        "filtres": ["3"],
        "help": ["x"],
        "undefok": ["unknown", "x"],
        "": ["", "x"],
    }
    others = st.sampled_from([(name, value) for name, each in own.items() for value in each])
    pairs = st.one_of(known, known, known, families, others)
    forms = [
        lambda name, value: [f"--{name}={value}"],
        lambda name, value: [f"--{name}={value}"],
        lambda name, value: [f"--{name}", value],
        lambda name, value: [f"-{name}={value}"],
        lambda name, value: [f"--{name}"],
        lambda name, value: [f"--no{name}"],
        lambda name, value: [name],
    ]
    return st.tuples(pairs, st.sampled_from(forms)).map(lambda drawn: drawn[1](*drawn[0]))


def forms(name, value):
    """A flag with its value as argparse takes it, or nearly so."""
    return st.sampled_from([[f"{name}={value}"], [name, value], [name], [f"{name[:-1]}={value}"]])


def program_arguments(parser):
    """A flag of a program that parses by itself, with a value."""
    texts = st.sampled_from([*PLACES, *PLACES, *TEXTS, "-1", "0", "1", "1000", "1001", "0.05"])
    flagged = [action for action in parser._actions if action.option_strings[-1] != "--help"]

    def with_value(action):
        chosen = st.sampled_from([*action.choices, ""]) if action.choices else texts
        found = st.one_of(chosen, chosen, texts)
        return found.flatmap(lambda value: forms(action.option_strings[-1], value))

    return st.sampled_from(flagged).flatmap(with_value)


def program_lines(name):
    """The arguments of a program; often those that it cannot do without come first."""
    program = PROGRAMS[name]
    lines = st.lists(program_arguments(program.parser()), max_size=5)
    return st.tuples(st.sampled_from([program.needed, program.needed, []]), lines).map(
        lambda drawn: (name, [*drawn[0], *(a for each in drawn[1] for a in each)])
    )


def command_lines():
    """Draws a command and its arguments."""
    lines = st.lists(arguments(), max_size=5).map(lambda found: [a for each in found for a in each])
    of_commands = st.tuples(st.sampled_from(COMMANDS), lines)
    return st.one_of(of_commands, st.sampled_from(list(PROGRAMS)).flatmap(program_lines))


class Program(NamedTuple):
    """A program that parses by itself.

    main: takes the arguments.
    parser: returns its parser.
    needed: arguments with which it works.
    """

    main: Callable[[list[str]], int | None]
    parser: Callable[[], argparse.ArgumentParser]
    needed: list[str]


PLACES = ["support", "query", "model", "run", "classifier", "nowhere", "odd.flags"]
MODEL = ["--model=model", "--support=support"]
ASKED = ["--classifier=classifier", "--query=query"]
PROGRAMS = {
    "reproduce": Program(
        reproduce.main, lambda: reproduce.parser(TABLES), ["--table=omniglot", "--print_only"]
    ),
    "demo": Program(demo.main, demo.parser, ["--model=model"]),
    "adapt": Program(client.main, lambda: client._parser("adapt"), [*MODEL, "--query=query"]),
    "check": Program(
        lambda line: client.main(["check", *line]), lambda: client._parser("check"), MODEL
    ),
    "predict": Program(
        lambda line: client.main(["predict", *line]), lambda: client._parser("predict"), ASKED
    ),
    "to_lite": Program(to_lite.main, to_lite._parser, ["--model=model", "--out=lite"]),
}


def reached(*_, **__):
    raise ValueError("The page would open now.")


def run_program(name, line):
    """Runs a program, but nothing that takes long."""
    reproduce._call = lambda command, flags: None
    demo.build_page = reached
    client.load_model = lambda path, needed=(): FirstClass()
    client.read_manifest = lambda path: {"image_shape": odd_inputs.SHAPE, "num_steps": 5}
    adapted.write_classifier = lambda folder, *_: os.makedirs(folder)
    to_lite.convert = lambda model, signature, quantize=False: b"converted"
    return PROGRAMS[name].main(line)


def run(name, line):
    """Parses a command line as the command does, up to its first checks."""
    command = importlib.import_module(f"tf_metalstm.{name}")
    continues = name != "train"

    def main(settings):
        if name == "train":
            training = settings.training
            Schedule(
                training.max_steps,
                training.checkpoint_every,
                training.validate_every,
                training.max_minutes,
            )
        if name == "search":
            command.parse_grid(settings.evaluation.grid)
        if settings.source in NEED_NO_DATA:
            build_tasks(settings)
        flags.write_settings(settings, "again", begun=False)
        again = flags.read_settings("again").placed(settings.run_dir)
        if again != settings:
            raise Find(f"run.flags are read back otherwise\n{settings}\n{again}")

    sys.argv = [name, *line]
    flags.run_command(main, continues_a_run=continues, uses=getattr(command, "USES", ()))


def in_a_process(function, *given):
    """Returns what a function returns in a fork of this process, or raises its Find."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        os.close(readable)
        try:
            found = ["returned", function(*given)]
        except Find as find:
            found = ["find", str(find)]
        with open(writable, "w") as file:
            json.dump(found, file)
        os._exit(0)
    os.close(writable)
    try:
        with open(readable) as file:
            sent = file.read()
    finally:  # it has ended, or takes too long
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not sent:
        raise Find("the process died")
    what, found = json.loads(sent)
    if what == "find":
        raise Find(found)
    return found


def check(example):
    """Checks that a command line ends with a sentence."""
    name, line = example
    if "--traceback" in line:  # it asked for a traceback
        return
    start = run_program if name in PROGRAMS else run
    code, out, err = in_a_process(hunting.call, start, name, line)
    wrong = ("Traceback", "Graph execution error")
    if code not in (0, 1, 2) or any(words in out + err for words in wrong):
        raise Find(f"exit code {code}\n{out[-500:]}\n{err[-2000:]}")
    if "codec can't" in err or "Error: '" in err or "object has no" in err:
        raise Find(f"strange words: {err.strip().splitlines()[-1][:200]}\n{err[-2000:]}")
    if code == 1 and not (out + err).strip():
        raise Find("no sentence")


@contextlib.contextmanager
def folder_of_runs():
    """Changes to a folder that has a run and odd flagfiles."""
    before, scratch = os.getcwd(), tempfile.mkdtemp()
    os.chdir(scratch)
    try:
        settings = make_settings({"source": "sine", "learner": "mlp", "num_steps": 1}).placed("run")
        fresh_run(settings)
        odd_inputs.ordinary(pathlib.Path())
        for name in ("model", "classifier"):
            pathlib.Path(name).mkdir()
            pathlib.Path(name, "saved_model.pb").touch()
        odd = "# a\n\n--num_shot=3\n--seed 4\nword\n--filters = 3\n"
        pathlib.Path("odd.flags").write_text(odd)
        pathlib.Path("binary.flags").write_bytes(bytes(range(256)))
        pathlib.Path("ring.flags").write_text("--flagfile=ring.flags\n")
        yield
    finally:
        os.chdir(before)
        shutil.rmtree(scratch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in COMMANDS:
        importlib.import_module(f"tf_metalstm.{name}")
    with folder_of_runs():
        found = hunting.hunt(check, command_lines(), options.seconds, options.seed)
    return int(hunting.report("flags", *found))


if __name__ == "__main__":
    sys.exit(main())
