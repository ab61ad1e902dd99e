"""What went wrong, in one line: the words of the operating system and of TensorFlow made plain."""

from __future__ import annotations

import re
from pathlib import Path

# Lines of TensorFlow's errors that say where in the graph and not what.
_WHERE = ("Graph execution error", "Detected at node", "<stack traces", "Hint:", " ", "\t")


def reason(error: BaseException) -> str:
    """Returns what went wrong, without names of operations and without a full stop.

    >>> reason(ValueError("assertion failed: [num_steps must be at most 9] [x = ] [10]"))
    'num_steps must be at most 9'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line for line in str(error).strip().splitlines() if line]
    line = next((line for line in lines if not line.startswith(_WHERE)), type(error).__name__)
    asserted = re.search(r"assertion failed: \[(.*?)\](?=\s|$)", line)
    if asserted:
        line = asserted[1]
    return re.sub(r"^\{\{.*?\}\} | \[Op:\w+\]", "", line).rstrip(".")


def not_written(path: str | Path, error: BaseException) -> OSError:
    """Returns the error to raise where a file or folder cannot be written.

    Args:
        path: what was to be written.
        error: what the operating system, or TensorFlow, says.
    """
    # TensorFlow puts the name of a temporary file before the reason.
    return OSError(f"{path} cannot be written: {reason(error).rpartition('; ')[2]}.")
