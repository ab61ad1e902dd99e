"""SIGTERM and Ctrl-C, held until a run has written down where it stands."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptedRunError(Exception):
    """A run was asked to stop, and did so after writing a checkpoint.

    Attributes:
        signal: that asked for it.
    """

    def __init__(self, number: int, step: int):
        self.signal = signal.Signals(number)
        super().__init__(
            f"{self.signal.name}: stopped after {step} updates, with a checkpoint. The same "
            "command goes on from there."
        )


class Interruption:
    """Within this context the first SIGTERM or Ctrl-C is only noted, a second one does its work.

    Python lets the main thread alone handle signals; in another one this context does nothing. A
    signal that is ignored stays so: a shell without job control starts what runs in the background
    that way, lest Ctrl-C for another program stop it.

    Attributes:
        signal: the number of the signal that came; None as long as there was none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        """Takes the signals over."""
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
        """Gives the signals back."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
