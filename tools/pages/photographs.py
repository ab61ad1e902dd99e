"""The table of heads on frozen features in docs/pictures.md, as benchmarks/photos.py wrote it."""

from __future__ import annotations

import json
from pathlib import Path

from pages.markdown import between, table

_RESULTS = Path("benchmarks/results/2026-11-26_photos.json")
_HEADS = {
    "prototypes, cosine": "prototypes, cosine",
    "ridge regression, penalty 0.01": "ridge regression, penalty 0.01",
    "logistic regression": "logistic regression, penalty 0.01 (the default)",
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
    rows = json.loads(_RESULTS.read_text(encoding="utf-8"))["rows"]
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
    text = Path("docs/pictures.md").read_text(encoding="utf-8")
    names = ("pictures", "task", *_HEADS.values(), _DIFFERENCE)
    return between(text, "photographs", table(names, lines))


def _text(row: dict) -> str:
    return f"{row['accuracy']:.1f} ± {row['interval']:.1f}"


def _difference(rows: list[dict]) -> str:
    """Returns the difference of the best head from ours, over the same episodes."""
    best = max(rows, key=lambda row: row["accuracy"])
    return f"{best['above']:+.1f} ± {best['above_interval']:.1f}"
