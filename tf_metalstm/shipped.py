"""What is delivered beside the code: flagfiles, clients, trained models, recorded results.

In a clone they lie in folders at its top, in an installed package in tf_metalstm/share. setup.cfg
says which folder becomes which, and what of it.
"""

from __future__ import annotations

import os
from pathlib import Path

FLAGS, CLIENTS, MODELS, TABLES = "flags", "clients", "models", "tables"

_PACKAGE = Path(__file__).resolve().parent
_IN_A_CLONE = {FLAGS: "flags", CLIENTS: "export", MODELS: "models", TABLES: "docs/tables"}


def folder(kind: str) -> Path:
    """Returns the folder of one kind of files, FLAGS, CLIENTS, MODELS or TABLES."""
    installed = _PACKAGE / "share" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / _IN_A_CLONE[kind]


def model_names() -> list[str]:
    """Returns the names of the trained models that are here.

    Those of mini-ImageNet may be used for research alone and are no part of the installed package,
    whose licence has no such limit: they are in the clone.
    """
    return sorted(manifest.parent.name for manifest in folder(MODELS).glob("*/manifest.json"))


def model_folder(model: str | os.PathLike[str]) -> Path:
    """Returns the folder of a model that is given by its path, or by the name of a trained one."""
    path = Path(model)
    if not path.exists() and str(model) in model_names():
        return folder(MODELS) / str(model)
    return path
