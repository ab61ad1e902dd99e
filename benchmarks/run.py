"""Measures everything on this machine: python benchmarks/run.py [SECTION ...] [--out FILE]

Each section runs in a separate process, one after the other. Nothing else should run meanwhile.
The results are written as JSON, with a description of the machine.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import tqdm
from machine import commit, machine

FOLDER = pathlib.Path(__file__).resolve().parent


def main():
    """Runs the sections in separate processes and writes the report."""
    from sections import SECTIONS  # is imported late, because it imports TensorFlow

    names = [n for n in SECTIONS if not prefixes or any(n.startswith(w) for w in prefixes)]
    report = {"machine": machine(), "commit": commit(), "when": time.strftime("%F"), "sections": {}}
    failed = []
    for name in tqdm.tqdm(names, unit="section"):
        process = subprocess.run(
            [sys.executable, str(FOLDER / "sections.py"), name], capture_output=True, text=True
        )
        if process.returncode:  # the other sections are still run
            failed.append(f"Section {name} failed:\n{process.stderr[-3000:]}")
            continue
        report["sections"][name] = json.loads(process.stdout.splitlines()[-1])
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"Written to {out}")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help="beginnings of section names; default: all")
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    prefixes = arguments.sections
    out = arguments.out or FOLDER / "results" / f"{'_'.join(prefixes) or 'all'}.json"
    main()
