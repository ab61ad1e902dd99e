"""`--help`: the flags by the part that they belong to, in under a second.

The catalogues are imported here and not above: with the stand-ins in place, if those are.
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
    "A recipe by name, such as omniglot_5way_1shot: its flagfile, wherever you are. "
    "python -m tf_metalstm recipes lists them."
)

_WIDTH = 88


def print_help(argv: Sequence[str]) -> None:
    """Prints the help and exits with 0."""
    try:
        text = help_text(argv)
    except Exception:  # whatever a part from elsewhere does on import
        if not stand_ins.are_in_use():
            raise
        stand_ins.start_again_without()
    print(f"{_about()}\n\n{text}")
    sys.exit(0)


def help_text(argv: Sequence[str] = ()) -> str:
    """Returns all flags with the parts that they belong to, as text.

    Args:
        argv: the command line; --parts in it names modules with further parts.
    """
    from tf_metalstm.catalogue import FAMILIES, load_parts
    from tf_metalstm.options import options_of
    from tf_metalstm.settings import ALWAYS

    load_parts(named_modules(argv))
    blocks = [
        "Flags of every command; --helpfull also lists those of absl.",
        _flag("run_dir", "Folder of the run; default: a new one under runs/."),
        _flag("parts", "Python modules with further parts, each with a tuple PARTS."),
        _flag("flagfile", "A file of flags, one on each line. What is typed after it wins."),
        _flag(RECIPE, RECIPE_TEXT),
        _flag("traceback", "Show where an error came from."),
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
