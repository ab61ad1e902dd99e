"""Delays SIGTERM and Ctrl-C until a run has written a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptedRunError(Exception):
    """A signal asked a run to stop, and it stopped after it wrote a checkpoint.

    Attributes:
        signal: the signal.
    """

    def __init__(self, number: int, step: int):
        self.signal = signal.Signals(number)
        super().__init__(
            f"{self.signal.name}: stopped after {step} updates, with a checkpoint. The same "
            "command continues from there."
        )


class Interruption:
    """A context that only records the first SIGTERM or Ctrl-C; a second one has its usual effect.

    In Python only the main thread can handle signals. In any other thread this context does
    nothing. A signal that is ignored stays ignored: a shell without job control starts background
    programs that way, so that Ctrl-C for another program does not stop them.

    Attributes:
        signal: the number of the signal that came; None if none came yet.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        """Installs the signal handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Restores the signal handlers that were there before."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
