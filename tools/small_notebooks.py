"""Writes copies of the notebooks with tiny trainings, so that running all of them takes seconds.

python tools/small_notebooks.py FOLDER

The notebooks keep the output of their full trainings; `make notebooks` runs those.
"""

from __future__ import annotations

import pathlib
import re
import sys

import nbformat

SMALLER = {
    r'"max_steps": \d+': '"max_steps": 4',
    r'"checkpoint_every": \d+,\s*': "",
    r'"validate_every": \d+': '"checkpoint_every": 4, "validate_every": 4',
    r'"validation_episodes": \d+': '"validation_episodes": 4',
    r"--num_episodes=\d+": "--num_episodes=4",
}
"""Text in a cell and what replaces it."""


def main(folder: pathlib.Path) -> None:
    """Writes the copies; a replacement that no notebook needs is an error."""
    folder.mkdir(parents=True, exist_ok=True)
    unused = set(SMALLER)
    for path in sorted(pathlib.Path("notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            for old, new in SMALLER.items():
                cell.source, count = re.subn(old, new, cell.source)
                unused -= {old} if count else set()
        nbformat.write(notebook, folder / path.name)
    if unused:
        sys.exit(f"No notebook has {', '.join(sorted(unused))}: take it out of {__file__}.")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
