"""A lock, so that only one process at a time writes into a run directory."""

from __future__ import annotations

from pathlib import Path

import filelock

_NAME = ".lock"


def lock(run_dir: str | Path) -> filelock.BaseFileLock:
    """Locks a run directory for this process, until the lock is released or the process ends.

    The operating system releases the lock when the process ends for any reason. The lock file
    itself stays.

    Args:
        run_dir: folder of the run; is created if it does not exist.

    Returns:
        The lock, a context manager that releases it.

    Raises:
        BlockingIOError: another process has the lock.
    """
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    run_lock = filelock.FileLock(Path(run_dir, _NAME))
    try:
        run_lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise BlockingIOError(
            f"Another process is training in run_dir={run_dir}: wait for it, or choose another "
            "folder."
        ) from error
    return run_lock
