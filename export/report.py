"""Writes the answers of a model: as a table on the terminal, CSV, JSON, or a page with pictures."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import by_class
import numpy as np
from folders import ClientError
from images import open_image
from served_model import NONE_OF_THESE

_THUMBNAIL = 96  # pixels of its longer side


@dataclass(frozen=True)
class Answer:
    """The answer for one image.

    name: the file, as the user named it.
    path: path of the file.
    predicted: the most probable class, or NONE_OF_THESE.
    probabilities: a probability for each class.
    known: its class, if its folder has the name of one, else None.
    """

    name: str
    path: Path
    predicted: str
    probabilities: np.ndarray
    known: str | None


@dataclass(frozen=True)
class Report:
    """All results.

    model: folder of the model.
    class_names: names of the classes, in the order of the probabilities.
    support: the files that the model adapted to, and their classes.
    support_losses: the loss before each update; empty for a model without updates.
    answers: an answer for each query.
    remarks: the warnings, as sentences.
    expected: the estimate, as sentences.
    estimate: the estimate as numbers; None if there is none.
    """

    model: Path
    class_names: Sequence[str]
    support: Sequence[tuple[Path, str]]
    support_losses: Sequence[float]
    answers: Sequence[Answer]
    remarks: Sequence[str]
    expected: Sequence[str] = ()
    estimate: dict[str, Any] | None = None

    @property
    def accuracy(self) -> tuple[int, int]:
        """Returns the number of right answers, and of images whose class is known."""
        known = [answer for answer in self.answers if answer.known is not None]
        return sum(answer.predicted == answer.known for answer in known), len(known)

    @property
    def confusion(self) -> dict[str, Counter[str]]:
        """Returns how often each class got each answer, for images whose class is known."""
        return by_class.count((a.known, a.predicted) for a in self.answers if a.known is not None)


def print_table(report: Report, num_rows: int) -> None:
    """Prints the first rows: file, predicted class and its probability."""
    lines = [("file", "predicted", "probability")]
    lines += [
        (
            answer.name,
            answer.predicted,
            "" if answer.predicted == NONE_OF_THESE else f"{max(answer.probabilities):.2%}",
        )
        for answer in report.answers[:num_rows]
    ]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    for file, name, probability in lines:
        print(f"{file:<{widths[0]}}  {name:<{widths[1]}}  {probability:>11}".rstrip())
    if len(report.answers) > num_rows:
        print(f"... and {len(report.answers) - num_rows} more")
    hits, known = report.accuracy
    if known:
        print(by_class.table(report.confusion))
        print(f"accuracy: {hits / known:.2%} ({hits} of {known} images)")


def csv_text(report: Report) -> str:
    """Returns a row for each image: file, predicted class, its probability, all probabilities."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["file", "predicted", "probability", *report.class_names])
    for answer in report.answers:
        numbers = (max(answer.probabilities), *answer.probabilities)
        writer.writerow([answer.name, answer.predicted, *(f"{value:.8g}" for value in numbers)])
    return text.getvalue()


def json_text(report: Report) -> str:
    """Returns all results as JSON, for programs."""
    hits, known = report.accuracy
    contents: dict[str, Any] = {
        "model": str(report.model),
        "classes": list(report.class_names),
        "support": [{"file": str(path), "class": name} for path, name in report.support],
        "support_losses": [float(loss) for loss in report.support_losses],
        "images": [
            {
                "file": answer.name,
                "predicted": answer.predicted,
                "probabilities": {
                    name: float(f"{value:.8g}")
                    for name, value in zip(report.class_names, answer.probabilities, strict=True)
                },
            }
            for answer in report.answers
        ],
        "estimate": report.estimate,
        "estimate_in_words": list(report.expected),
        "accuracy": hits / known if known else None,
        "by_class": by_class.for_json(report.confusion),
        "warnings": list(report.remarks),
    }
    return json.dumps(contents, indent=1) + "\n"


def html_text(report: Report) -> str:
    """Returns an HTML page that contains everything: pictures, bars, and the loss curve."""
    hits, known = report.accuracy
    accuracy = f"<p>Accuracy: {hits / known:.1%} ({hits} of {known} images).</p>" if known else ""
    expected = "".join(f"<p>{html.escape(said)}</p>" for said in report.expected)
    remarks = "".join(f'<p class="wrong">{html.escape(said)}</p>' for said in report.remarks)
    named = [*report.class_names, *({NONE_OF_THESE} & {a.predicted for a in report.answers})]
    matrix = by_class.matrix_html(report.confusion, named) if known else ""
    rows = "".join(_answer_row(report, answer) for answer in report.answers)
    support = "".join(
        f"<tr><th>{html.escape(name)}</th><td>"
        + "".join(_thumbnail(path) for path, label in report.support if label == name)
        + "</td></tr>"
        for name in report.class_names
    )
    adapted = f"<h2>Support pictures</h2><table>{support}</table>" if report.support else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Few-shot answers</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; color: #222 }}
table {{ border-collapse: collapse }} th, td {{ padding: .4rem .8rem .4rem 0; text-align: left }}
tr {{ border-bottom: 1px solid #ddd }} img {{ height: 72px; margin-right: 4px }}
.row {{ display: flex; align-items: center; white-space: nowrap; gap: .5em }}
.scale {{ width: 120px }} .bar {{ display: block; height: .7em; background: #3b6ea5 }}
.wrong {{ color: #a33 }} small {{ color: #666 }} figure {{ margin: 0 }}
</style></head><body>
<h1>Few-shot answers</h1>
<p>Model {html.escape(str(report.model))}, {len(report.class_names)} classes.</p>
{expected}{remarks}{accuracy}
{adapted}{_loss_curve(report.support_losses)}
{matrix}
<h2>Answers</h2><table>{rows}</table>
</body></html>
"""


def write(path: Path, text: str) -> None:
    """Writes a text completely or not at all; names that are not text are shown by codes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as opened:
            opened.write(text)
        partial.rename(path)
    except OSError as error:
        raise ClientError(f"{path} cannot be written ({error.strerror}).") from error
    finally:
        partial.unlink(missing_ok=True)


def _answer_row(report: Report, answer: Answer) -> str:
    bars = "".join(
        f'<div class="row"><span class="scale"><span class="bar" style="width:{value:.1%}"></span>'
        f"</span>{html.escape(name)} <small>{value:.1%}</small></div>"
        for name, value in sorted(
            zip(report.class_names, answer.probabilities, strict=True), key=lambda pair: -pair[1]
        )
    )
    wrong = answer.known is not None and answer.known != answer.predicted
    remark = f' <span class="wrong">(is {html.escape(answer.known or "")})</span>' if wrong else ""
    return (
        f"<tr><td>{_thumbnail(answer.path)}</td><td><b>{html.escape(answer.predicted)}</b>{remark}"
        f"<br><small>{html.escape(answer.name)}</small></td><td>{bars}</td></tr>"
    )


def _thumbnail(path: Path) -> str:
    image = open_image(path).convert("RGB")
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    png = io.BytesIO()
    image.save(png, format="PNG")
    data = base64.b64encode(png.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(path.name)}">'


def _loss_curve(losses: Sequence[float]) -> str:
    """Returns the support loss before each update as a small figure."""
    if len(losses) < 2:
        return ""
    width, height, margin = 420, 150, 30
    top = max(losses) or 1.0
    places = [
        (
            margin + (width - 2 * margin) * step / (len(losses) - 1),
            height - margin - (height - 2 * margin) * loss / top,
        )
        for step, loss in enumerate(losses)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    labels = "".join(
        f'<text x="{x:.1f}" y="{height - 12}" font-size="11" text-anchor="middle">{step}</text>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#3b6ea5"/>'
        for step, (x, y) in enumerate(places, start=1)
    )
    return (
        f'<figure><svg width="{width}" height="{height}" role="img">'
        f'<polyline points="{line}" fill="none" stroke="#3b6ea5" stroke-width="2"/>{labels}'
        f'<text x="{margin}" y="14" font-size="11">{top:.3g}</text></svg>'
        "<figcaption><small>The loss on these images before each update.</small></figcaption>"
        "</figure>"
    )
