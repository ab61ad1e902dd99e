"""One process at a time writes into a run directory."""

from __future__ import annotations

from pathlib import Path

import filelock

_NAME = ".lock"


def lock(run_dir: str | Path) -> filelock.BaseFileLock:
    """Takes a run directory for this process, until the lock is released or the process ends.

    The operating system lets go of the lock when its process dies, however it dies; the file
    itself stays.

    Args:
        run_dir: made where it is not there.

    Returns:
        The lock, a context manager that releases it.

    Raises:
        BlockingIOError: another process has it.
    """
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    taken = filelock.FileLock(Path(run_dir, _NAME))
    try:
        taken.acquire(timeout=0)
    except filelock.Timeout as error:
        raise BlockingIOError(
            f"Another process is training in run_dir={run_dir}: wait for it, or choose another "
            "folder."
        ) from error
    return taken
