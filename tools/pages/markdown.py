"""Helpers of all generated pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

GENERATED = "<!-- Written by tools/write_pages.py: change the code or the records, then run it. -->"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a table; an empty list if there are no rows."""
    lines = [_row(row) for row in rows]
    return [_row(columns), _row(["---"] * len(columns)), *lines] if lines else []


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def between(text: str, name: str, lines: Sequence[str]) -> str:
    """Returns a text with the lines between two marks replaced.

    Args:
        text: the whole text.
        name: name in the two marks.
        lines: the new lines.

    Raises:
        ValueError: a mark is missing.
    """
    begin, end = f"<!-- {name}: written by tools/write_pages.py -->", f"<!-- end of {name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"The page needs the lines {begin} and {end}.")
    before, after = text.partition(begin)[0], text.partition(end)[2]
    return "\n".join([f"{before}{begin}", "", *lines, "", f"{end}{after}"])
