"""Accuracy by class and the confusion matrix, of images of known class. Needs Python alone."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def count(pairs: Iterable[tuple[str, str]]) -> dict[str, Counter[str]]:
    """Returns how often each class was taken for which.

    Args:
        pairs: of each image the class that it has, and the class that was answered.
    """
    found: dict[str, Counter[str]] = {}
    for known, predicted in pairs:
        found.setdefault(known, Counter())[predicted] += 1
    return found


def for_json(counts: Mapping[str, Counter[str]]) -> dict[str, Any]:
    """Returns the same with the accuracy of each class."""
    return {
        name: {
            "images": answers.total(),
            "accuracy": answers[name] / answers.total(),
            "answers": dict(answers.most_common()),
        }
        for name, answers in counts.items()
    }


def table(counts: Mapping[str, Counter[str]]) -> str:
    """Returns a row a class, as text: images, accuracy, and what the others were taken for."""
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
    """Returns the confusion matrix as a table of a page, the cells shaded by their share."""
    names = [html.escape(name) for name in class_names]
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for known, answers in counts.items():
        cells = "".join(_cell(answers[name], answers.total()) for name in class_names)
        share = f"{answers[known] / answers.total():.1%}"
        rows.append(f"<tr><th>{html.escape(known)}</th>{cells}<td>{share}</td></tr>")
    return (
        "<h2>Which classes it confuses</h2><p>A row a class, a column an answer; in images.</p>"
        f"<table><tr><th></th>{head}<th>accuracy</th></tr>{''.join(rows)}</table>"
    )


def _cell(number: int, total: int) -> str:
    return f'<td style="background:rgb(59 110 165 / {number / total:.0%})">{number or ""}</td>'
