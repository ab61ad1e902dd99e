"""The generated tables of the README: methods and results."""

from __future__ import annotations

from pathlib import Path

from pages.markdown import between, table
from pages.results import percent
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.tables.catalogue import TABLES
from tf_metalstm.tables.results import key, read_records

# Table, shots and runs of the rows, in the order of the README.
_SHOWN = (
    (
        "mini_imagenet",
        1,
        ("trunk_64_more_prototypes", "trunk_64_more_outer_product", "1shot_augmented"),
    ),
    (
        "mini_imagenet",
        5,
        ("trunk_64_more_prototypes", "trunk_64_more_outer_product", "5shot_augmented"),
    ),
    ("omniglot", 1, ("1shot_prototypical", "1shot_meta_lstm_from_prototypes", "1shot_meta_lstm")),
    ("omniglot", 5, ("5shot_prototypical", "5shot_meta_lstm_from_prototypes", "5shot_meta_lstm")),
)


def readme() -> str:
    """Returns the README with its tables."""
    text = Path("README.md").read_text(encoding="utf-8")
    return between(between(text, "methods", _methods()), "results", _results())


def _methods() -> list[str]:
    rows = []
    for member in FAMILIES["method"]:
        part = member.part
        rows.append((f"`{part.name}`", f"{part.title}{f' ({part.paper})' if part.paper else ''}"))
    return table(("`--method`", ""), rows)


def _results() -> list[str]:
    rows = []
    for name, num_shot, runs in _SHOWN:
        records = read_records(name)
        for cell in TABLES[name]():
            if (cell.num_way, cell.num_shot) != (5, num_shot) or cell.run.name not in runs:
                continue
            result = records[key(cell)]
            method = ", ".join(cell.method.split(", ")[:2])
            mode = result.batch_norm.removeprefix("inductive (").removesuffix(")")
            published = cell.published or "-"
            rows.append((name, str(num_shot), method, f"{percent(result)} %", published, mode))
    columns = ("images", "shots", "method", "measured", "published", "batch norm")
    return table(columns, rows)
