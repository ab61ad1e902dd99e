"""Finds the files that come with the code: flagfiles, clients, trained models, recorded results.

In a clone they are in the top folders, in an installed package in tf_metalstm/share. setup.cfg maps
the folders and chooses the files.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

FLAGS, CLIENTS, MODELS, TABLES = "flags", "clients", "models", "tables"

_PACKAGE = Path(__file__).resolve().parent
_IN_A_CLONE = {FLAGS: "flags", CLIENTS: "export", MODELS: "models", TABLES: "docs/tables"}


def folder(kind: str) -> Path:
    """Returns the folder of one kind of files: FLAGS, CLIENTS, MODELS or TABLES."""
    installed = _PACKAGE / "share" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / _IN_A_CLONE[kind]


def model_names() -> list[str]:
    """Returns the names of the trained models.

    Only a clone has the models of mini-ImageNet. They may be used for research only, and the
    licence of the installed package has no such limit.
    """
    return sorted(manifest.parent.name for manifest in folder(MODELS).glob("*/manifest.json"))


def model_folder(model: str | os.PathLike[str]) -> Path:
    """Returns the folder of a model.

    Args:
        model: path of the folder, or one of `model_names`.
    """
    path = Path(model)
    # os.path.exists raises no error for a path that is too long or may not be read.
    if not os.path.exists(path) and str(model) in model_names():
        return folder(MODELS) / str(model)
    return path


def run_client(name: str, command: str, arguments: Sequence[str]) -> None:
    """Runs a client as a script.

    Args:
        name: name of its file without the ending.
        command: the command in its help.
        arguments: arguments of the client; --model may be the name of a trained model.
    """
    directory = str(folder(CLIENTS))
    sys.path.insert(0, directory)  # Python does this for scripts
    sys.argv = [command, *_with_model(arguments)]
    runpy.run_path(f"{directory}/{name}.py", run_name="__main__")


def _with_model(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a client, with the folder of a model in place of its name."""
    replaced = list(arguments)
    for place, argument in enumerate(replaced):
        flag, is_one, value = argument.partition("=")
        if flag == "--model" and is_one:
            replaced[place] = f"--model={model_folder(value)}"
        elif flag == "--model" and place + 1 < len(replaced):
            replaced[place + 1] = str(model_folder(replaced[place + 1]))
    return replaced
