"""Errors of the operating system and of TensorFlow as one plain line."""

from __future__ import annotations

import re
from pathlib import Path

# Lines of TensorFlow's errors that only name a place in the graph begin with these words.
_WHERE = ("Graph execution error", "Detected at node", "<stack traces", "Hint:", " ", "\t")


def reason(error: BaseException) -> str:
    """Returns the reason of an error in one line, without names of operations and a full stop.

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
    """Returns the error to raise if a file or folder cannot be written.

    Args:
        path: path of the file or folder.
        error: the error of the operating system or of TensorFlow.
    """
    # TensorFlow puts the name of a temporary file before the reason.
    return OSError(f"{path} cannot be written: {reason(error).rpartition('; ')[2]}.")
