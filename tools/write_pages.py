"""Writes what follows from code and records: docs/parts.md, docs/api.md, tables of the README.

    python tools/write_pages.py

A test compares what lies there with what this would write.
"""

from __future__ import annotations

import inspect
import pathlib

import tf_metalstm
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.files import write_atomically
from tf_metalstm.options import Option, options_of
from tf_metalstm.settings import ALWAYS
from tf_metalstm.tables.catalogue import TABLES, Cell
from tf_metalstm.tables.results import Result, key, read_records

ROOT = pathlib.Path(__file__).resolve().parents[1]
_GENERATED = "<!-- Written by tools/write_pages.py: change the code, then run it. -->"


def parts_page() -> str:
    """Returns the page of all parts and their options."""
    lines = [
        _GENERATED,
        "",
        "# Parts and their options",
        "",
        "A run is put together from a source, a method and what the method needs. Each part has "
        "options of its own. An option that does nothing with the chosen parts is an error.",
    ]
    shown: set[str] = set()
    for family in FAMILIES.values():
        lines += ["", f"## `--{family.name}`", "", f"{family.text} Default: `{family.default}`."]
        for member in family:
            part = member.part
            paper = f" {part.paper}." if part.paper else ""
            needs = f" Needs a {', a '.join(part.needs)}." if part.needs else ""
            lines += ["", f"### `{part.name}`", "", f"{part.title}.{paper}{needs}"]
            options = options_of(part.options)
            lines += _table([each for name, each in options.items() if name not in shown])
            if shared := [f"`--{name}`" for name in options if name in shown]:
                lines += ["", f"And, as above, {', '.join(shared)}."]
            shown |= options.keys()
    lines += ["", "## Options of every run"]
    for owner in ALWAYS:
        lines += ["", f"### {owner.title}"]
        lines += _table(list(options_of(owner).values()))
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """Returns the page of the public names."""
    lines = [
        _GENERATED,
        "",
        "# Public names",
        "",
        "`from tf_metalstm import ...`. What is not listed here may change without notice.",
        "",
        "| name | what it is | module |",
        "|---|---|---|",
    ]
    for name in sorted(tf_metalstm.__all__, key=str.lower):
        found = getattr(tf_metalstm, name)
        first = (inspect.getdoc(found) or "").partition("\n\n")[0].replace("\n", " ")
        lines.append(f"| `{name}` | {first.replace('|', chr(92) + '|')} | `{found.__module__}` |")
    return "\n".join(lines) + "\n"


def _table(options: list[Option]) -> list[str]:
    rows = [_row(each) for each in options]
    return ["", "| option | default | values | |", "|---|---|---|---|", *rows] if rows else []


def _row(each: Option) -> str:
    default = "" if each.default is None else f"`{each.format(each.default)}`"
    default = "" if default == "``" else default
    return f"| `--{each.name}` | {default} | {each.expected()} | {each.text} |"


def readme() -> str:
    """Returns the README with its tables of methods and results."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, rows in (("methods", _methods()), ("results", _results())):
        begin, end = f"<!-- {name}: written by tools/write_pages.py -->", f"<!-- end of {name} -->"
        before, after = text.partition(begin)[0], text.partition(end)[2]
        text = "\n".join([f"{before}{begin}", "", *rows, f"{end}{after}"])
    return text


def _methods() -> list[str]:
    rows = ["| `--method` | |", "|---|---|"]
    for member in FAMILIES["method"]:
        part = member.part
        rows.append(f"| `{part.name}` | {part.title}{f' ({part.paper})' if part.paper else ''} |")
    return rows


# Table and run of the rows in the README, in its order.
_SHOWN = (
    ("mini_imagenet", ("nearest_neighbor", "1shot_matching", "1shot_augmented")),
    ("mini_imagenet", ("nearest_neighbor", "5shot_matching", "5shot_augmented")),
    ("omniglot", ("nearest_neighbor", "1shot_matching", "1shot_meta_lstm")),
    ("omniglot", ("nearest_neighbor", "5shot_matching", "5shot_meta_lstm")),
)


def _results() -> list[str]:
    rows = [
        "| images | shots | method | measured | published | batch norm |",
        "|---|---|---|---|---|---|",
    ]
    for position, (table, runs) in enumerate(_SHOWN):
        num_shot, records = (1, 5)[position % 2], read_records(table)
        for cell in TABLES[table]():
            if cell.num_shot == num_shot and cell.run.name in runs:
                rows.append(_result(table, cell, records[key(cell)]))
    return rows


def _result(table: str, cell: Cell, result: Result) -> str:
    method = cell.method.partition(",")[0]
    measured = f"{100 * result.mean:.2f} +- {100 * result.interval:.2f} %"
    mode = result.batch_norm.removeprefix("inductive (").removesuffix(")")
    values = (table, str(cell.num_shot), method, measured, cell.published or "-", mode)
    return f"| {' | '.join(values)} |"


PAGES = {"docs/parts.md": parts_page, "docs/api.md": api_page, "README.md": readme}

if __name__ == "__main__":
    for name, page in PAGES.items():
        write_atomically(ROOT / name, page())
        print(f"Written: {name}")
