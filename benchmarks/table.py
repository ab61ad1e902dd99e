"""Prints measurements as tables: python benchmarks/table.py FILE

There is a table for each section and a row for each measurement. Columns with the same value in
all rows are left out.
"""

import json
import pathlib
import sys

# Columns that are not printed.
LEFT_OUT = {"fastest", "slowest", "repeats", "multiply_rate", "processor_seconds"}


def rows_of(report):
    """Yields name and rows of each table; sections with one row each are joined into one table."""
    joined = {"memory": [], "optimizer": []}
    for name, rows in report["sections"].items():
        kind = name.partition("_")[0]
        if kind in joined:
            joined[kind] += [{"section": name, **row} for row in rows]
        else:
            yield name, rows
    yield from ((kind, rows) for kind, rows in joined.items() if rows)


def table(rows):
    """Returns a table as text, without columns that have the same value in all rows."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in LEFT_OUT))
    if len(rows) > 1:
        names = [name for name in names if len({str(row.get(name)) for row in rows}) > 1]
    lines = [names, ["---"] * len(names)]
    lines += [[text(name, row.get(name, "")) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(name, value):
    """Returns a value as text, in the unit that its name says."""
    if name.endswith("bytes"):
        return f"{value / 1e6:.0f} MB"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    report = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    machine = report["machine"]
    print(f"{machine['processor']}, {machine['cores']} cores, {report['commit']}")
    for title, measured in rows_of(report):
        print(f"\n{title}\n\n{table(measured)}")
