"""docs/results.md: all numbers in docs/tables."""

from __future__ import annotations

from pathlib import Path

from pages.markdown import GENERATED, table
from tf_metalstm.tables.catalogue import TABLES
from tf_metalstm.tables.results import Result, read_records
from tf_metalstm.tables.text import rows

NUM_EPISODES = 600

_ABOUT = {
    "mini_imagenet": (
        "mini-ImageNet",
        "The published numbers are those of Ravi & Larochelle, ICLR 2017, table 1, and for "
        "relation and prototypical networks those of their own papers. Fine-tuning has no "
        "training; its two searches took 33 minutes and one hour. "
        "[The lab book](lab_book/index.md) has a page on each kind of row.",
    ),
    "omniglot": (
        "Omniglot",
        "The published numbers are from the paper of each method; those of MAML and Meta-SGD are "
        "transductive. Their training was run in part only, see "
        "[MAML and Meta-SGD on Omniglot](lab_book/omniglot_maml.md). The nearest neighbour has "
        "64 filters and was trained on all 4,400 training classes together; the meta-LSTM has 32.",
    ),
    "glyphs": (
        "Glyphs",
        "Glyphs are characters drawn from fonts. There are no published numbers for them. See "
        "[five methods on glyphs](lab_book/glyphs_methods.md).",
    ),
    "ablations": (
        "Ablations on mini-ImageNet at 42 x 42 pixels",
        "Each row changes one setting of the preset `paper` and trains for 1,000 updates. The "
        "numbers are from validation episodes. [The ablations](lab_book/ablations.md) page has "
        "the conclusions.",
    ),
}


def percent(result: Result) -> str:
    """Returns the mean and its interval in %, as "61.88 +- 0.66"."""
    return f"{100 * result.mean:.2f} +- {100 * result.interval:.2f}"


def results_page() -> str:
    """Returns the page with every table of records."""
    lines = [
        GENERATED,
        "",
        "# Results",
        "",
        f"The tables have the accuracy in % over {NUM_EPISODES} fixed episodes with 15 queries a "
        "class, and half the width of its 95 % interval. *Inductive* means that each query is "
        "classified by itself. The [equations](equations.md#batch-normalization-section-34) "
        "explain the batch-norm modes. The weights are those with the best validation score, "
        'unless *updates* says otherwise. "n of m" means that the run was stopped before its end. '
        "The minutes are training time on one or two processor cores that were shared with other "
        "work, so they only show the order of magnitude. The numbers are in `docs/tables`. This "
        "command prints them too:",
        "",
        "    python -m tf_metalstm.reproduce --table=mini_imagenet --print_only",
        "",
        "Without `--print_only` the command first makes the runs that are missing on this "
        "machine, which takes hours. `--record` adds the measured numbers to `docs/tables`.",
    ]
    for name in (*_ABOUT, *(TABLES.keys() - _ABOUT.keys())):
        title, text = _ABOUT.get(name, (name, ""))
        lines += ["", f"## {title}", "", text, "", *_records(name)]
    return "\n".join(lines) + "\n"


def _records(name: str) -> list[str]:
    records = read_records(name)
    lines = []
    for cell in TABLES[name]():
        [row] = rows(cell, Path("nothing was run here"), NUM_EPISODES, records)
        value = row.value + " (an earlier recipe)" * ("earlier" in row.where)
        mode = row.batch_norm.removeprefix("inductive (").removesuffix(")")
        task = f"{cell.num_way}-way {cell.num_shot}-shot"
        lines.append((cell.method, task, cell.published or "-", value, mode, *row[3:]))
    columns = ("method", "task", "published", "measured", "batch norm", "transductive", "updates")
    return table((*columns, "training", "commit"), lines)
