"""Prints what was measured as tables: python benchmarks/table.py FILE

A table a section, a row a measurement, without the columns that are the same in all rows.
"""

import json
import pathlib
import sys

# Those that a reader asks for; the file has more.
LEFT_OUT = {"fastest", "slowest", "repeats", "multiply_rate", "processor_seconds"}


def rows_of(report):
    """Yields name and rows of each table: sections of a row each are one table."""
    joined = {"memory": [], "optimizer": []}
    for name, rows in report["sections"].items():
        kind = name.partition("_")[0]
        if kind in joined:
            joined[kind] += [{"section": name, **row} for row in rows]
        else:
            yield name, rows
    yield from ((kind, rows) for kind, rows in joined.items() if rows)


def table(rows):
    names = list(dict.fromkeys(name for row in rows for name in row if name not in LEFT_OUT))
    if len(rows) > 1:
        names = [name for name in names if len({str(row.get(name)) for row in rows}) > 1]
    lines = [names, ["---"] * len(names)]
    lines += [[text(name, row.get(name, "")) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(name, value):
    if name.endswith("bytes"):
        return f"{value / 1e6:.0f} MB"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(f"{found['machine']['processor']}, {found['machine']['cores']} cores, {found['commit']}")
    for title, measured in rows_of(found):
        print(f"\n{title}\n\n{table(measured)}")
