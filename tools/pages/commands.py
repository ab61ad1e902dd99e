"""docs/commands.md: every command with every flag."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import textwrap
from types import ModuleType

from absl import flags

from pages.markdown import GENERATED, table
from pages.reference import option_table
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.flagfiles import RECIPE
from tf_metalstm.flags import define_flags
from tf_metalstm.help import FLAGFILE_TEXT, RECIPE_TEXT
from tf_metalstm.options import Option, options_of
from tf_metalstm.settings import ALWAYS, known_options, owners_of
from tf_metalstm.tables.catalogue import TABLES

COMMANDS = ("train", "evaluate", "search", "visualize", "compare_optimizers", "export")
"""Commands that work on a run and have the options of parts."""

OTHERS = ("reproduce", "demo")
"""Commands that have only a few flags."""


def commands_page() -> str:
    """Returns the page of all commands and flags."""
    values = flags.FlagValues()
    define_flags(values)
    own = sorted(set(values) - {*FAMILIES, *known_options()})
    lines = [
        GENERATED,
        "",
        "# Commands",
        "",
        "Run a command as `python -m tf_metalstm.NAME` or `tf-metalstm NAME`. `--help` prints "
        "all flags, grouped by the part that they belong to.",
        "",
        *table(
            ("command", "what it does"),
            [(f"[`{name}`](#{name})", _module(name)[1]) for name in (*COMMANDS, *OTHERS, "adapt")]
            + [("[`to_lite`](#to_lite)", "Converts an exported model for LiteRT.")]
            + [("`recipes`", "Lists the recipes for `--recipe=NAME`.")],
        ),
        "",
        "`train` accepts every flag on this page. The other commands that work on a run first read "
        "its `run.flags`, the file with all settings of the training, and then the command line. "
        "There a flag that only training uses is an error.",
        "",
        "## Flags of every command",
        "",
        *table(
            ("flag", "what it does"),
            [(f"`--{name}`", values[name].help or "") for name in own]
            + [("`--flagfile`", FLAGFILE_TEXT)]
            + [(f"`--{RECIPE}`", RECIPE_TEXT)],
        ),
    ]
    for name in COMMANDS:
        module, _ = _module(name)
        lines += ["", f"## `{name}`", "", *_docstring(module)]
        uses = getattr(module, "USES", None)
        chosen = [o for owner in ALWAYS for o in options_of(owner).values()]
        if uses is not None:
            chosen = [each for each in chosen if each.name in uses]
            lines += ["", *option_table(chosen)]
            lines += [
                "",
                "It also accepts options of parts that may differ from the training, such as "
                "`--num_shot`. Options that cannot change after training began are an error.",
            ]
        else:
            lines += ["", "It uses [all flags](#all-flags)."]
    for name in OTHERS:
        module, _ = _module(name)
        parser = module.parser(TABLES) if name == "reproduce" else module.parser()
        lines += ["", f"## `{name}`", "", *_docstring(module), "", *_arguments(parser)]
    lines += _adapt()
    lines += _to_lite()
    lines += [
        "",
        "## All flags",
        "",
        "The links lead to the defaults and the allowed values.",
        "",
        *table(("flag", "belongs to", "what it does"), _index()),
    ]
    return "\n".join(lines) + "\n"


def _module(name: str) -> tuple[ModuleType, str]:
    """Returns the module of a command, and its first sentence without the call after the colon."""
    module = importlib.import_module(f"tf_metalstm.{name}")
    first = (module.__doc__ or "").partition("\n")[0]
    return module, first.partition(": python")[0].rstrip(".") + "."


def _docstring(module: ModuleType) -> list[str]:
    """Returns the docstring in Markdown, with flags and paths as code."""
    text = textwrap.dedent(module.__doc__ or "").strip()
    paragraphs = [each if each.startswith("    ") else _code(each) for each in text.split("\n\n")]
    return "\n\n".join(paragraphs).splitlines()


def _code(paragraph: str) -> str:
    first, colon, call = paragraph.partition(": python -m ")
    if colon and "\n" not in first:
        call, newline, rest = call.partition("\n")
        return f"{_code(first)}:\n\n    python -m {call}{newline}{newline}{_code(rest)}".rstrip()
    return re.sub(r"(?<![`\w/])(--\w+|[A-Z_]{3,}(?:/[\w.*-]*[\w*])+)(?![`\w])", r"`\1`", paragraph)


def _client(name: str) -> ModuleType:
    """Returns the module of a client in export/, which needs no package."""
    sys.path.insert(0, "export")
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove("export")


def _adapt() -> list[str]:
    """Returns the section of `adapt`."""
    module, _ = _module("adapt")
    parser_of = _client("adapt")._parser
    lines = ["", "## `adapt`", "", *_docstring(module), "", *_arguments(parser_of("adapt"))]
    for name in ("check", "predict"):
        lines += ["", f"`adapt {name}`:", "", *_arguments(parser_of(name))]
    return lines


def _to_lite() -> list[str]:
    """Returns the section of `to_lite`."""
    module = _client("to_lite")
    text = [line.replace("python to_lite.py", "tf-metalstm to_lite") for line in _docstring(module)]
    return ["", "## `to_lite`", "", *text, "", *_arguments(module._parser())]


def _arguments(parser: argparse.ArgumentParser) -> list[str]:
    rows = []
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            choices = f"One of {', '.join(action.choices)}." if action.choices else ""
            needed = "Required." if action.required else ""
            default = f"`{action.default}`" if action.default not in (None, False) else ""
            text = f"{action.help[0].upper()}{action.help[1:]}." if action.help else ""
            words = " ".join(each for each in (text, choices, needed) if each)
            rows.append((f"`{action.option_strings[0]}`", default, words))
    return table(("flag", "default", "what it does"), rows)


def _index() -> list[tuple[str, str, str]]:
    rows = []
    for family in FAMILIES.values():
        link = f"[{family.name}](parts.md#{family.name})"
        rows.append((f"`--{family.name}`", link, f"{family.text} Default: `{family.default}`."))
    for name, each in known_options().items():
        rows.append((f"`--{name}`", _owners(each), each.text))
    return sorted(rows, key=lambda row: row[0].strip("`"))


def _owners(each: Option) -> str:
    links = [f"[{name}](parts.md#{name})" for family, name in owners_of(each.name)]
    if not links:
        [owner] = [o for o in ALWAYS if each.name in options_of(o)]
        anchor = owner.title.lower().replace(" ", "-")
        links = [f"[{owner.title}](parts.md#{anchor})"]
    return ", ".join(links)
