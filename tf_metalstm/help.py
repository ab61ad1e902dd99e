"""`--help`: all flags by the part that they belong to, in under a second.

The functions here import the catalogues themselves, after the stand-ins were installed.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from tf_metalstm import stand_ins
from tf_metalstm.argv import named_modules
from tf_metalstm.flagfiles import RECIPE

RECIPE_TEXT = (
    "Name of a recipe, such as omniglot_5way_1shot; it works in any folder. "
    "python -m tf_metalstm recipes lists the recipes."
)

FLAGFILE_TEXT = "A file with one flag on each line. Flags that are typed after it override it."

_WIDTH = 88


def print_help(argv: Sequence[str]) -> None:
    """Prints the help and exits with 0."""
    try:
        text = help_text(argv)
    except Exception:  # the import of a part from outside may raise anything
        if not stand_ins.are_in_use():
            raise
        stand_ins.start_again_without()
    print(f"{_about()}\n\n{text}")
    sys.exit(0)


def help_text(argv: Sequence[str] = ()) -> str:
    """Returns a text with all flags and the parts that they belong to.

    Args:
        argv: the command line; its --parts may name modules with further parts.
    """
    from tf_metalstm.catalogue import FAMILIES, load_parts
    from tf_metalstm.options import options_of
    from tf_metalstm.settings import ALWAYS

    load_parts(named_modules(argv))
    blocks = [
        "Flags of every command; --helpfull also lists those of absl.",
        _flag("run_dir", "Folder of the run; default: a new one under runs/."),
        _flag("parts", "Python modules with further parts; each module has a tuple PARTS."),
        _flag("flagfile", FLAGFILE_TEXT),
        _flag(RECIPE, RECIPE_TEXT),
        _flag("traceback", "Show the Python traceback of an error."),
    ]
    shown: set[str] = set()
    for family in FAMILIES.values():
        names = ", ".join(family.names())
        blocks += [
            "",
            _flag(family.name, f"{family.text} One of {names}; default: {family.default}."),
        ]
        for member in family:
            part = member.part
            new = [each for each in options_of(part.options).values() if each.name not in shown]
            shared = [n for n in options_of(part.options) if n in shown]
            paper = f" ({part.paper})" if part.paper else ""
            blocks += ["", f"--{family.name}={part.name}: {part.title}{paper}"]
            blocks += [_flag(each.name, _described(each)) for each in new]
            if shared:
                blocks.append(_indented("Also: " + ", ".join(f"--{n}" for n in shared), 2))
            shown |= {each.name for each in new}
    for owner in ALWAYS:
        blocks += ["", owner.title]
        blocks += [_flag(each.name, _described(each)) for each in options_of(owner).values()]
    return "\n".join(blocks)


def _about() -> str:
    main = sys.modules["__main__"]
    return (main.__doc__ or "").strip().partition("\n\n")[0]


def _described(each: Any) -> str:
    values = each.expected().capitalize()
    if each.default is None and "default:" in each.text:
        return f"{each.text} {values}."
    default = "not set" if each.default is None else each.format(each.default) or "none"
    return f"{each.text} {values}; default: {default}."


def _flag(name: str, text: str) -> str:
    return f"  --{name}\n{_indented(text, 6)}"


def _indented(text: str, columns: int) -> str:
    margin = " " * columns
    return textwrap.fill(text, _WIDTH, initial_indent=margin, subsequent_indent=margin)
