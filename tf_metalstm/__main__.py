"""Runs a command by name: tf-metalstm COMMAND, or python -m tf_metalstm COMMAND.

`tf-metalstm train --recipe=omniglot_5way_1shot` is `python -m tf_metalstm.train --recipe=...`.
"""

from __future__ import annotations

import difflib
import runpy
import sys

from tf_metalstm import shipped
from tf_metalstm.argv import COMMANDS
from tf_metalstm.flagfiles import recipe_names, recipe_title

CLIENTS = {
    "adapt": "adapt an exported model to pictures, estimate its accuracy, classify others",
    "to_lite": "convert an exported model for LiteRT",
}
_RECIPES = {"recipes": "list the recipes for train --recipe=NAME"}


def main() -> None:
    """Runs the command that the first argument names."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv = [name, *rest]
        runpy.run_module(f"tf_metalstm.{name}", run_name="__main__", alter_sys=True)
    elif name in CLIENTS:
        shipped.run_client(name, f"tf-metalstm {name}", rest)
    elif name in _RECIPES:
        width = max(map(len, recipe_names()), default=0)
        print("\n".join(f"{each:<{width}}  {recipe_title(each)}" for each in recipe_names()))
    elif name in ("-h", "-help", "--help", "--helpshort", "help"):
        print(usage())
    else:
        near = difflib.get_close_matches(name, [*COMMANDS, *CLIENTS, *_RECIPES], n=1)
        advice = f"did you mean {near[0]}?" if near else "there is no such command."
        sys.exit(f"{name}: {advice}\n\n{usage()}")


def usage() -> str:
    """Returns the list of commands."""
    blocks = {"": COMMANDS, "These also work without the package:": CLIENTS, "Lists:": _RECIPES}
    lines = ["tf-metalstm COMMAND, or python -m tf_metalstm COMMAND; --help shows its flags."]
    for title, commands in blocks.items():
        lines += ["", *([title] if title else [])]
        lines += [f"  {name:<18} {text}" for name, text in commands.items()]
    lines += ["", f"The files of the clients: {shipped.folder(shipped.CLIENTS)}"]
    lines += [f"Trained models by name: {', '.join(shipped.model_names())}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
