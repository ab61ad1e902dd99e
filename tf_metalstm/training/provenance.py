"""RUN_DIR/starts.json: the commit and the versions each time a run was started."""

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
    """Adds an entry to the list, unless the last one has the same commit and versions.

    Args:
        run_dir: folder of the run.
        pretrained: name and step of the other run from whose weights this run now starts, or None.
    """
    starts = read_starts(run_dir)
    start: dict[str, Any] = {
        "commit": _commit(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    if pretrained is not None:
        start["pretrained"] = pretrained
    before = {name: value for name, value in (starts or [{}])[-1].items() if name != "pretrained"}
    if before != start:
        path = Path(run_dir, STARTS)
        write_atomically(path, json.dumps([*starts, start], indent=1) + "\n")


def read_starts(run_dir: str | Path) -> list[dict[str, Any]]:
    """Returns the entries of a run, the oldest first; an empty list if there is no file."""
    path = Path(run_dir, STARTS)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def commits(run_dir: str | Path) -> list[str]:
    """Returns the commits with which a run was started or continued, each once."""
    return list(dict.fromkeys(start["commit"] or "unknown" for start in read_starts(run_dir)))


def _commit() -> str | None:
    """Returns the commit of the clone that has this package, with a "+" if files were changed.

    Returns None if there is no clone or no git.
    """
    folder = Path(__file__).parent
    try:
        # A package that is installed inside another repository is not tracked there: git fails.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(folder, "rev-parse", "--short", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+" * bool(changed)


def _git(folder: Path, *arguments: str) -> str:
    # Git takes no lock here. On a full disk the lock file would stay and stop later git commands.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
