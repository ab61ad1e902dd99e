"""Removes from notebooks the data that change with every run and have no meaning for readers.

python tools/tidy_notebooks.py notebooks/*.ipynb
"""

from __future__ import annotations

import sys

import nbformat


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Removes standard error and execution numbers, and joins the printed texts of each cell."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = {}, f"cell-{number}"
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        outputs: list[nbformat.NotebookNode] = []
        for output in cell.outputs:
            if output.get("name") == "stderr":
                continue
            if "execution_count" in output:
                output.execution_count = None
            if outputs and output.output_type == outputs[-1].output_type == "stream":
                outputs[-1].text += output.text
            else:
                outputs.append(output)
        cell.outputs = outputs


if __name__ == "__main__":
    for name in sys.argv[1:]:
        loaded = nbformat.read(name, as_version=4)
        tidy(loaded)
        nbformat.write(loaded, name)
