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
    """Returns the starts of a run, the first one first; none of one that began before they were."""
    path = Path(run_dir, STARTS)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def commits(run_dir: str | Path) -> list[str]:
    """Returns the commits at which a run was started and taken up again, each once."""
    return list(dict.fromkeys(start["commit"] or "unknown" for start in read_starts(run_dir)))


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
    # Without its lock: one that is left where a disk is full would stop every git after it.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
