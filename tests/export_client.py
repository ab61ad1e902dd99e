"""export/adapt.py as a module; it belongs to no package that could be imported."""

import importlib.util
import pathlib

CLIENT = pathlib.Path(__file__).resolve().parents[1] / "export" / "adapt.py"


def load_client():
    spec = importlib.util.spec_from_file_location("adapt_client", CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = load_client()
