"""The tables of photographs, from the files that scripts in benchmarks wrote.

docs/pictures.md has heads on frozen features (photos.py). In docs/lab_book,
photographs_fine_tuning.md has fine-tuning (fine_tuning.py), and photographs_learned.md has rules
that were trained on other classes (isolated_rules.py).
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from pages.markdown import between, table

_HEADS_FILE = Path("benchmarks/results/2026-11-26_photos.json")
_LEARNED_FILE = Path("benchmarks/results/2026-11-26_photos_learned.json")
_TUNED_FILE = Path("benchmarks/results/2026-11-26_photos_fine_tuned.json")
_OURS = "logistic regression"
_TUNED_RATES, _UPDATES = (3e-4, 1e-3), 20  # of our fine-tuning
_IN_BATCHES = "`fine_tuning`, 120 updates in batches"
_RATE, _EPOCHS = 1e-3, 30  # of fine-tuning with a new layer
_HEADS = {
    "prototypes, cosine": "prototypes, cosine",
    "ridge regression, penalty 0.01": "ridge regression, penalty 0.01",
    "logistic regression, penalty 0.1": "logistic regression, penalty 0.1",
    _OURS: "logistic regression, penalty 0.01 (the default)",
    "scikit-learn LogisticRegression()": "`LogisticRegression()`",
    "scikit-learn LogisticRegression(C=10), features of length 1": (
        "`LogisticRegression(C=10)`, features of length 1"
    ),
    "scikit-learn NearestCentroid()": "`NearestCentroid()`",
}
_THEIRS = [head for head in _HEADS if head.startswith("scikit-learn")]
_DIFFERENCE = "the best of scikit-learn minus our logistic regression"


def pictures_page() -> str:
    """Returns the page with its table: a row a task, a column a head."""
    rows = _read(_HEADS_FILE)["rows"]
    found = {(row["data"], row["task"], row["head"]): row for row in rows}
    tasks = dict.fromkeys((row["data"], row["task"]) for row in rows)
    lines = [
        (
            data,
            task,
            *(_text(found[data, task, head]) for head in _HEADS),
            _difference([found[data, task, head] for head in _THEIRS]),
        )
        for data, task in tasks
    ]
    names = ("pictures", "task", *_HEADS.values(), _DIFFERENCE)
    return _with_table("docs/pictures.md", table(names, lines))


def fine_tuning_page() -> str:
    """Returns the page of the lab book on fine-tuning with its table."""
    rows = _fine_tuning(_read(_LEARNED_FILE)["fine_tuning"]["rows"])
    return _with_table("docs/lab_book/photographs_fine_tuning.md", rows)


def learned_page() -> str:
    """Returns the page of the lab book on learned rules with its table."""
    rows = _rules(_read(_LEARNED_FILE)["learned_rules"]["rows"])
    return _with_table("docs/lab_book/photographs_learned.md", rows)


def _with_table(page: str, lines: list[str]) -> str:
    return between(Path(page).read_text(encoding="utf-8"), "photographs", lines)


def _fine_tuning(rows: list[dict]) -> list[str]:
    """Returns a row a task: fine-tuning in two ways, and logistic regression on its episodes."""
    heads = {
        (row["fingerprint"], row["task"]): row["scores"]
        for row in _read(_HEADS_FILE)["rows"]
        if row["head"] == _OURS
    }
    own = _read(_TUNED_FILE)["rows"]
    tuned = {
        (row["fingerprint"], row["task"], row["rate"]): row
        for row in own
        if row["updates"] == _UPDATES
    }
    batches = {(row["fingerprint"], row["task"]): row for row in own if "batch_size" in row}
    lines = []
    for row in rows:
        if (row["rate"], row["epochs"], row["num_episodes"]) != (_RATE, _EPOCHS, 20):
            continue  # the choice of the rate, and fewer epochs
        task = row["fingerprint"], row["task"]
        ours, found = heads[task][:20], [tuned[*task, rate] for rate in _TUNED_RATES]
        many = batches.get(task)  # only with ten pictures of each class
        lines.append(
            (
                row["data"],
                row["task"],
                f"{statistics.mean(ours):.1f} ± {_half_width(ours):.1f}",
                _text(row),
                *map(_text, found),
                *(_above(each["scores"], ours) for each in found),
                _above(found[-1]["scores"], row["scores"]),
                _text(many) if many else "-",
                _above(many["scores"], row["scores"]) if many else "-",
            )
        )
    tunings = [f"`fine_tuning`, rate {rate:g}" for rate in _TUNED_RATES]
    minus = [f"rate {rate:g} minus {_OURS}" for rate in _TUNED_RATES]
    last = (f"rate {_TUNED_RATES[-1]:g} minus new layer", _IN_BATCHES, "in batches minus new layer")
    names = ("pictures", "task", _OURS, f"new layer, {_EPOCHS} epochs", *tunings, *minus, *last)
    return table(names, lines)


def _rules(rows: list[dict]) -> list[str]:
    """Returns a row a rule: its training loss, and its accuracy above that of no update."""
    sets = list(dict.fromkeys(row["data"] for row in rows))
    lines = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        cells = []
        losses = {row["seed"]: row["training_loss"] for row in rows if row["rule"] == rule}
        for data in sets:
            found = [row for row in rows if (row["rule"], row["data"]) == (rule, data)]
            if rule == "no update":
                cells.append(f"{_text(found[0])} %")
                continue
            above = ", ".join(f"{row['above']:+.1f}" for row in found)
            cells.append(f"{above}; ± {max(row['above_interval'] for row in found):.1f}")
        lines.append((rule, ", ".join(f"{loss:.2f}" for loss in losses.values()), *cells))
    return table(("rule", "training loss", *sets), lines)


def _above(scores: Sequence[float], others: Sequence[float]) -> str:
    """Returns the mean difference of two lists of scores of the same episodes, as text."""
    differences = [a - b for a, b in zip(scores, others, strict=True)]
    return f"{statistics.mean(differences):+.1f} ± {_half_width(differences):.1f}"


def _half_width(values: Sequence[float]) -> float:
    """Returns the half width of the 95 % interval of a mean."""
    return 1.96 * statistics.stdev(values) / math.sqrt(len(values))


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _text(row: dict) -> str:
    return f"{row['accuracy']:.1f} ± {row['interval']:.1f}"


def _difference(rows: list[dict]) -> str:
    """Returns the difference of the best head from ours, over the same episodes."""
    best = max(rows, key=lambda row: row["accuracy"])
    return f"{best['above']:+.1f} ± {best['above_interval']:.1f}"
