"""Ctrl-C: a command ends with one sentence and the exit code 130, as a shell reports it.

While a command imports TensorFlow there is nothing to clean up, and it ends at once. After that
Ctrl-C is Python's KeyboardInterrupt, so that unfinished files are removed on the way out. Training
holds it back until a checkpoint is written (`training/interruption.py`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

EXIT_CODE = 128 + signal.SIGINT

_EARLY = "SIGINT: stopped before anything was done.\n"
_STOPPED = "SIGINT: stopped. What was under way is not kept: the same command begins it again."


def end_at_once() -> None:
    """From now on Ctrl-C ends the process, unless somebody has said what it does."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _EndAtOnce())


@contextlib.contextmanager
def in_one_sentence() -> Iterator[None]:
    """Ends the process after Ctrl-C within this context, when what is under way is cleaned up."""
    if isinstance(signal.getsignal(signal.SIGINT), _EndAtOnce):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one need not wait
        print(_STOPPED, file=sys.stderr)
        sys.exit(EXIT_CODE)


class _EndAtOnce:
    """A handler of the signal."""

    def __init__(self) -> None:
        # Standard error is held back while TensorFlow is imported; this is where it went before.
        self._terminal = os.dup(2)

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        os.write(self._terminal, _EARLY.encode())
        os._exit(EXIT_CODE)
