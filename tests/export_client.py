"""The files of export/ as modules; they belong to no package that could be imported."""

import importlib
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "export"
CLIENT = FOLDER / "adapt.py"

SANITIZED = "-g -fsanitize=address,undefined -fno-sanitize-recover=all"
"""Options for a C compiler, under which a program tells what it oversteps or leaks."""

sys.path.insert(0, str(FOLDER))
try:
    client, folders, images, report = map(
        importlib.import_module, ("adapt", "folders", "images", "report")
    )
finally:
    sys.path.remove(str(FOLDER))
