"""docs/parts.md with all parts and their options, and docs/api.md with the public names."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import tf_metalstm
from pages.markdown import GENERATED, table
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.options import Option, options_of
from tf_metalstm.settings import ALWAYS


def parts_page() -> str:
    """Returns the page of all parts and their options."""
    lines = [
        GENERATED,
        "",
        "# Parts and their options",
        "",
        "A run consists of a source, a method, and the parts that the method needs. Each part has "
        "its own options. An option that does nothing with the chosen parts is an error.",
    ]
    shown: set[str] = set()
    for family in FAMILIES.values():
        lines += ["", f"## `{family.name}`", "", f"{family.text} Default: `{family.default}`."]
        for member in family:
            part = member.part
            paper = f" {part.paper}." if part.paper else ""
            needs = f" Needs a {', a '.join(part.needs)}." if part.needs else ""
            lines += ["", f"### `{part.name}`", "", f"{part.title}.{paper}{needs}"]
            options = options_of(part.options)
            lines += ["", *option_table(each for n, each in options.items() if n not in shown)]
            if shared := [f"`--{name}`" for name in options if name in shown]:
                lines += ["", f"It also has these options from above: {', '.join(shared)}."]
            shown |= options.keys()
    lines += ["", "## Options of every run"]
    for owner in ALWAYS:
        lines += ["", f"### {owner.title}", "", *option_table(options_of(owner).values())]
    return "\n".join(_without_double_blanks(lines)) + "\n"


def option_table(options: Iterable[Option]) -> list[str]:
    """Returns the lines of a table of options; an empty list if there are no options."""
    rows = []
    for each in options:
        default = "" if each.default is None else f"`{each.format(each.default)}`"
        default = "" if default == "``" else default
        rows.append((f"`--{each.name}`", default, each.expected(), each.text))
    return table(("option", "default", "values", "what it does"), rows)


def api_page() -> str:
    """Returns the page of the public names: a table, then the docstring of each name."""
    places = {name: getattr(tf_metalstm, name).__module__ for name in tf_metalstm.__all__}
    names = sorted(places, key=str.lower)
    rows = [(f"[`{n}`](#{places[n]}.{n})", _first_sentence(n), f"`{places[n]}`") for n in names]
    lines = [
        GENERATED,
        "",
        "# Public names",
        "",
        "Import these names with `from tf_metalstm import ...`. All other names may change without "
        "notice.",
        "",
        *table(("name", "what it is", "module"), rows),
    ]
    for name in names:
        lines += ["", f"::: {places[name]}.{name}"]
    return "\n".join(lines) + "\n"


def _first_sentence(name: str) -> str:
    text = inspect.getdoc(getattr(tf_metalstm, name)) or ""
    return text.partition("\n\n")[0].replace("\n", " ")


def _without_double_blanks(lines: list[str]) -> list[str]:
    return [line for i, line in enumerate(lines) if line or not i or lines[i - 1]]
