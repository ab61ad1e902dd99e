"""A model that was exported once and stays: every later version still has to load it.

tests/golden/model                the demo's, exported: its folder says how it was trained
tests/golden/episode              support and query images of five classes that it never saw
tests/golden/probabilities.json   what it answered when it was made

It is made anew for a new format_version only, and then the old one stays beside it.
"""

import json
import pathlib

FOLDER = pathlib.Path(__file__).parent / "golden"
MODEL, EPISODE, PROBABILITIES = FOLDER / "model", FOLDER / "episode", FOLDER / "probabilities.json"


def expected():
    """Returns the classes, and the probabilities by the name of the file."""
    found = json.loads(PROBABILITIES.read_text())
    return found["classes"], found["probabilities"]
