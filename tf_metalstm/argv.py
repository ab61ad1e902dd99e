"""Reads from a command line what is needed before its flags can be defined."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tf_metalstm.flagfiles import FlagfileError, expand, lines_of

COMMANDS = {
    "train": "train a method, or continue a run",
    "evaluate": "score a trained run on a fixed list of tasks",
    "search": "search options of a trained run on validation tasks",
    "visualize": "draw the updates of a trained rule",
    "compare_optimizers": "compare a learned optimizer with tuned ones",
    "export": "write a trained run as a SavedModel",
    "reproduce": "make the missing runs of a published table, and print the table",
    "demo": "open a page to try a model on your own pictures",
}
"""The commands, `python -m tf_metalstm.NAME`, and what each does."""

PARTS = "parts"
"""The flag that names modules with further parts."""

# Files in the folder of a run: the settings of its training, the facts about its tasks, and the
# result of `search`.
RUN_FLAGS, TASKS, FOUND_FLAGS = "run.flags", "tasks.json", "found.flags"

_HELP = {"--help", "-help", "-h", "--helpshort", "-helpshort"}


def wants_help(argv: Sequence[str]) -> bool:
    """Returns whether a command line asks for help; --helpfull is absl's own."""
    return not _HELP.isdisjoint(argv)


def named_modules(argv: Sequence[str]) -> list[str]:
    """Returns the modules that --parts names: on the command line, in a flagfile, in a run.

    They must be known before flags are defined, because their parts have flags too.
    """
    names: list[str] = []
    try:
        everything = expand(argv[1:])
    except FlagfileError:
        everything = list(argv[1:])  # the error is reported when the flags are parsed
    run_dir = None
    for index, argument in enumerate(everything):
        name, _, value = argument.lstrip("-").partition("=")
        if not value and index + 1 < len(everything):
            value = everything[index + 1]
        if argument.startswith("-") and name == PARTS:
            names += value.split(",")
        if argument.startswith("-") and name == "run_dir":
            run_dir = value
    file = Path(os.path.expanduser(run_dir or ""), RUN_FLAGS)
    if run_dir and file.is_file():
        for line in lines_of(file):
            if line.startswith(f"--{PARTS}="):
                names += line.partition("=")[2].split(",")
    return list(dict.fromkeys(name for name in names if name))
