"""A fixed export of an early version, which every later version must load.

tests/golden/model                an export of the demo; its folder says how it was trained
tests/golden/episode              support and query images of five classes not used in training
tests/golden/probabilities.json   its answers when it was exported

A new golden model is only made for a new format_version. The old one then stays beside it.
"""

import json
import pathlib

FOLDER = pathlib.Path(__file__).parent / "golden"
MODEL, EPISODE, PROBABILITIES = FOLDER / "model", FOLDER / "episode", FOLDER / "probabilities.json"


def expected():
    """Returns the classes, and the probabilities by name of the file."""
    found = json.loads(PROBABILITIES.read_text())
    return found["classes"], found["probabilities"]
