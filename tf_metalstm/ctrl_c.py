"""Ctrl-C: a command prints one sentence and ends with exit code 130, as shells report it.

While a command imports TensorFlow there is nothing to clean up, and it ends at once. After that
Ctrl-C raises Python's KeyboardInterrupt, so that unfinished files are removed. Training delays it
until a checkpoint is written (`training/interruption.py`).
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
_STOPPED = "SIGINT: stopped. Unfinished work is lost: run the same command to begin it again."


def end_at_once() -> None:
    """Makes Ctrl-C end the process at once, unless another handler is installed."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _EndAtOnce())


@contextlib.contextmanager
def in_one_sentence() -> Iterator[None]:
    """A context in which Ctrl-C ends the process with one sentence, after cleaning up."""
    if isinstance(signal.getsignal(signal.SIGINT), _EndAtOnce):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process at once
        print(_STOPPED, file=sys.stderr)
        sys.exit(EXIT_CODE)


class _EndAtOnce:
    """A signal handler that writes one sentence and ends the process."""

    def __init__(self) -> None:
        # While TensorFlow is imported, standard error goes to a file. This is the original one.
        self._terminal = os.dup(2)

    def __call__(self, number: int, frame: FrameType | None) -> NoReturn:
        os.write(self._terminal, _EARLY.encode())
        os._exit(EXIT_CODE)
