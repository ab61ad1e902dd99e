"""The table of heads on frozen features in docs/pictures.md, as benchmarks/photos.py wrote it."""

from __future__ import annotations

import json
from pathlib import Path

from pages.markdown import between, table

_RESULTS = Path("benchmarks/results/2026-11-26_photos.json")
_HEADS = {
    "prototypes, cosine": "prototypes, cosine",
    "ridge regression, penalty 0.01": "ridge regression, penalty 0.01",
    "logistic regression, penalty 0.1": "logistic regression, penalty 0.1",
    "logistic regression": "logistic regression, penalty 0.01",
    "scikit-learn LogisticRegression()": "`LogisticRegression()`",
    "scikit-learn LogisticRegression(C=10), features of length 1": (
        "`LogisticRegression(C=10)`, features of length 1"
    ),
    "scikit-learn NearestCentroid()": "`NearestCentroid()`",
}


def pictures_page() -> str:
    """Returns the page with its table: a row a task, a column a head."""
    rows = json.loads(_RESULTS.read_text(encoding="utf-8"))["rows"]
    found = {(row["data"], row["task"], row["head"]): row for row in rows}
    tasks = dict.fromkeys((row["data"], row["task"]) for row in rows)
    lines = [
        (data, task, *(_text(found.get((data, task, head))) for head in _HEADS))
        for data, task in tasks
    ]
    text = Path("docs/pictures.md").read_text(encoding="utf-8")
    return between(text, "photographs", table(("pictures", "task", *_HEADS.values()), lines))


def _text(row: dict | None) -> str:
    return "-" if row is None else f"{row['accuracy']:.1f} ± {row['interval']:.1f}"
