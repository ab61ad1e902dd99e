"""What made a run: the commit and the versions of each start, in RUN_DIR/starts.json."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_metalstm.files import write_atomically

STARTS = "starts.json"


def record_start(run_dir: str | Path, pretrained: dict[str, Any] | None = None) -> None:
    """Adds a start to the list, unless the one before was of the same commit and versions.

    Args:
        run_dir: folder of the run.
        pretrained: name and update of the run whose weights it began at with this start, or None.
    """
    path = Path(run_dir, STARTS)
    starts: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    start: dict[str, Any] = {
        "commit": _commit(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    if pretrained is not None:
        start["pretrained"] = pretrained
    before = {name: value for name, value in (starts or [{}])[-1].items() if name != "pretrained"}
    if before != start:
        write_atomically(path, json.dumps([*starts, start], indent=1) + "\n")


def _commit() -> str | None:
    """Returns the commit of the clone that this package is in, "+" after it where files differ.

    None where there is no clone, or no git.
    """
    folder = Path(__file__).parent
    try:
        # Where the package is installed inside of somebody's repository, git does not know it.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(folder, "rev-parse", "--short", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+" * bool(changed)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
