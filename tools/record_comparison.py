"""Copies a comparison of optimizers into docs/tables/optimizers.json, for the generated pages.

    python tools/record_comparison.py NAME REPORT --recipe RECIPE [--rename FOLDER=NAME ...]

REPORT is a .json file that `compare_optimizers` wrote. Curves and single losses are left out. The
commit is that of the run's training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

RECORDS = Path(__file__).resolve().parents[1] / "docs" / "tables" / "optimizers.json"
LEFT_OUT = {"optimizers", "baselines", "exported", "checkpoint", "changed"}
PLACES = {"data_dir", "prepared_dir"}
KEPT = ("learning_rate", "log10_final", "below_best", "speed_up", "over_adam")


def main() -> None:
    """Reads the report and writes the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="name of the comparison in the records")
    parser.add_argument("report", type=Path, help="the report, in the folder of its run")
    parser.add_argument("--recipe", required=True, help="recipe of the training")
    parser.add_argument("--rename", nargs="*", default=[], help="names of exported optimizers")
    options = parser.parse_args()
    report = json.loads(options.report.read_text(encoding="utf-8"))
    [start] = json.loads((options.report.parents[1] / "starts.json").read_text(encoding="utf-8"))
    names = dict(each.split("=", 1) for each in options.rename)
    changed = {n: value for n, value in report["changed"].items() if n not in PLACES}
    records = json.loads(RECORDS.read_text(encoding="utf-8"))
    records[options.name] = {
        **{name: value for name, value in report.items() if name not in LEFT_OUT},
        **({"changed": changed} if changed else {}),
        "recipe": options.recipe,
        "commit": start["commit"],
        "batch_norm": "none",
        "optimizers": {
            names.get(name, name): {key: one[key] for key in KEPT}
            for name, one in report["optimizers"].items()
        },
    }
    RECORDS.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
