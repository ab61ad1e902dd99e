"""Writes the pages, and the tables in pages, that are generated from code and records.

    python tools/write_pages.py           writes them
    python tools/write_pages.py --check   writes nothing; fails if a page is not up to date

`tools/pages/__init__.py` lists the pages.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # uses this clone, not an installed package

from tf_metalstm import stand_ins  # noqa: E402


def main() -> None:
    """Writes or checks the pages."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail on differences")
    options = parser.parse_args()
    os.chdir(ROOT)
    stand_ins.use_stand_ins()  # docstrings and options do not need TensorFlow, which takes seconds
    from pages import PAGES

    from tf_metalstm.files import write_atomically

    outdated = []
    for name, page in PAGES.items():
        path = ROOT / name
        text = page()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        outdated.append(name)
        if not options.check:
            write_atomically(path, text)
            print(f"Written: {name}")
    if options.check and outdated:
        sys.exit(f"{', '.join(outdated)} not up to date: run python tools/write_pages.py")


if __name__ == "__main__":
    main()
