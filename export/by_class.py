"""Accuracy of each class and the confusion matrix, for images of known class. Needs only Python."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def count(pairs: Iterable[tuple[str, str]]) -> dict[str, Counter[str]]:
    """Returns how often each class got each answer.

    Args:
        pairs: for each image its class and the answer.
    """
    counts: dict[str, Counter[str]] = {}
    for known, predicted in pairs:
        counts.setdefault(known, Counter())[predicted] += 1
    return counts


def for_json(counts: Mapping[str, Counter[str]]) -> dict[str, Any]:
    """Returns the counts and the accuracy of each class, for JSON."""
    return {
        name: {
            "images": answers.total(),
            "accuracy": answers[name] / answers.total(),
            "answers": dict(answers.most_common()),
        }
        for name, answers in counts.items()
    }


def table(counts: Mapping[str, Counter[str]]) -> str:
    """Returns a text with a row for each class: images, accuracy, and wrong answers."""
    lines = [("class", "images", "accuracy", "taken for")]
    for name, answers in counts.items():
        wrong = [f"{other} {n}" for other, n in answers.most_common() if other != name]
        share = f"{answers[name] / answers.total():.2%}"
        lines.append((name, str(answers.total()), share, ", ".join(wrong)))
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip()
        for a, b, c, d in lines
    )


def matrix_html(counts: Mapping[str, Counter[str]], class_names: Sequence[str]) -> str:
    """Returns the confusion matrix as an HTML table; a cell is darker for a larger share."""
    names = [html.escape(name) for name in class_names]
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for known, answers in counts.items():
        cells = "".join(_cell(answers[name], answers.total()) for name in class_names)
        share = f"{answers[known] / answers.total():.1%}"
        rows.append(f"<tr><th>{html.escape(known)}</th>{cells}<td>{share}</td></tr>")
    return (
        "<h2>Confusion matrix</h2><p>Rows are classes, columns answers, numbers count images.</p>"
        f"<table><tr><th></th>{head}<th>accuracy</th></tr>{''.join(rows)}</table>"
    )


def _cell(number: int, total: int) -> str:
    return f'<td style="background:rgb(59 110 165 / {number / total:.0%})">{number or ""}</td>'
