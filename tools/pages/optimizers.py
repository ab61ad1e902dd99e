"""The tables of learned optimizers, from the comparisons in docs/tables/optimizers.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pages.markdown import between, table

_RESULTS = Path("docs/tables/optimizers.json")
_LEARNED, _UNTUNED = "learned", "Adam, not tuned"
_LSTM = "LSTM optimizer"
_TUNED = (
    "momentum",
    "Nesterov",
    "Adam",
    "Muon",
    "RMSprop",
    "Lion",
    "Schedule-Free AdamW",
    "SGD",
)
_CODE, _PAPER = "quadratics, code's convention", "quadratics, paper's convention"
_MNIST = "784-20-10 on MNIST, 100 updates"

Comparison = Mapping[str, Any]


def optimizer_page() -> str:
    """Returns docs/optimizer.md with the rule, the best tuned optimizer and Adam."""
    columns = {
        "quadratics, W and y uniform": _read()[_CODE],
        "quadratics, W and y normal": _read()[_PAPER],
        "MNIST": _read()[_MNIST],
    }
    best = [each["best_baseline"] for each in columns.values()]
    lines = [
        (_LSTM, *(_cell(each, _LEARNED) for each in columns.values())),
        (
            "the best tuned one",
            *(
                f"{_cell(each, name)}, {name}"
                for each, name in zip(columns.values(), best, strict=True)
            ),
        ),
        ("Adam, tuned", *(_cell(each, "Adam") for each in columns.values())),
    ]
    return _with(Path("docs/optimizer.md"), table(("", *columns), lines))


def quadratics_page() -> str:
    """Returns the page of the lab book on quadratics with its table."""
    read = _read()
    columns = [read[_CODE], read[_PAPER]]
    alone = [read[f"{name}, the gradient alone"] for name in (_CODE, _PAPER)]
    values = [cell.strip("*") for cell in _of(alone, _LEARNED)]
    lines = _lines(columns, rates=True)
    lines.insert(1, ("the same rule, reading the gradient alone", *values))
    names = ("code's convention", "paper's convention")
    heads = [
        f"{name}, list {each['list_fingerprint']}"
        for name, each in zip(names, columns, strict=True)
    ]
    return _with(Path("docs/lab_book/optimizer_quadratics.md"), table(("", *heads), lines))


def mnist_page() -> str:
    """Returns the page of the lab book on MNIST with its table."""
    read = _read()
    columns = {
        "784-20-10": read[_MNIST],
        "200 updates": read["784-20-10 on MNIST, 200 updates"],
        "784-40-10": read["784-40-10 on MNIST, 100 updates"],
        "784-20-20-10, Glorot's start": read["784-20-20-10 on MNIST, Glorot's start, 100 updates"],
        "784-20-20-10": read["784-20-20-10 on MNIST, 100 updates"],
        "ReLU": read["784-20-10 with ReLU on MNIST, 100 updates"],
        "CIFAR-10, 768-20-10": read["768-20-10 on CIFAR-10, 16 x 16 color, 100 updates"],
    }
    lines = _lines(list(columns.values()), intervals=False)
    differences = (each["optimizers"][_LEARNED]["below_best"] for each in columns.values())
    lines.append(("LSTM minus the best tuned one", *(_signed(one) for one in differences)))
    return _with(Path("docs/lab_book/optimizer_mnist.md"), table(("", *columns), lines))


def _lines(
    columns: Sequence[Comparison], intervals: bool = True, rates: bool = False
) -> list[tuple[str, ...]]:
    """Returns a row for each optimizer that one of the comparisons has.

    Args:
        columns: the comparisons.
        intervals: whether all have their intervals; the rule always has its own.
        rates: whether tuned optimizers have their learning rates.
    """
    names = {
        _LEARNED: _LSTM,
        **{name: name for name in _TUNED},
        _UNTUNED: "Adam at its default, 0.001",
        "Celo, published weights": "Celo, published weights",
    }
    return [
        (
            title,
            *_of(columns, name, intervals or name == _LEARNED, rates and name in _TUNED),
        )
        for name, title in names.items()
        if any(name in each["optimizers"] for each in columns)
    ]


def _of(
    columns: Sequence[Comparison], name: str, interval: bool = True, rate: bool = False
) -> list[str]:
    return [_cell(each, name, interval, rate) for each in columns]


def _cell(comparison: Comparison, name: str, interval: bool = True, rate: bool = False) -> str:
    """Returns log10 of the mean final loss; bold if it is the lowest of the comparison."""
    optimizers = comparison["optimizers"]
    if name not in optimizers:
        return "-"
    value, low, high = optimizers[name]["log10_final"]
    text = f"{value:.2f}" + (f" ({low:.2f} to {high:.2f})" if interval else "")
    text += f" at {optimizers[name]['learning_rate']:.2g}" if rate else ""
    lowest = min(optimizers, key=lambda each: optimizers[each]["log10_final"][0])
    return f"**{text}**" if name == lowest else text


def _signed(interval: Sequence[float]) -> str:
    value, low, high = interval
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _with(page: Path, rows: Sequence[str]) -> str:
    return between(page.read_text(encoding="utf-8"), "optimizers", rows)


def _read() -> dict[str, Comparison]:
    return json.loads(_RESULTS.read_text(encoding="utf-8"))
