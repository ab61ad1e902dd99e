"""Commands and clients of the package as a user starts them, in this process.

`tf-metalstm NAME ARGUMENTS` begins in `tf_metalstm.__main__`, which runs a module or a script as
the main one. That is done here too, with streams of its own, and flags and signals as before.
"""

import contextlib
import os
import signal
import sys
from typing import NamedTuple
from unittest import mock

import hunting
from absl import flags
from absl.testing import flagsaver

from tf_metalstm import __main__


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def sentence(self):
        """The one line that a command which fails ends with; warnings and notes are other lines."""
        said = [line for line in (self.out + self.err).splitlines() if line.strip()]
        return said[-1] if said else ""


@contextlib.contextmanager
def _as_before():
    """Flags, signals, the path of imports and the present folder are put back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folder, parsed = os.getcwd(), flags.FLAGS.is_parsed()
    flags.FLAGS.unparse_flags()
    with flagsaver.flagsaver(), mock.patch.object(sys, "path", [*sys.path]):
        try:
            yield
        finally:
            os.chdir(folder)
            if parsed:
                flags.FLAGS.mark_as_parsed()
            for number, handler in handlers.items():
                signal.signal(number, handler)


def call(name, *arguments):
    """Returns how a command or client ended.

    Raises:
        hunting.Find: it ended in a traceback.
    """
    with _as_before(), mock.patch.object(sys, "argv", ["tf-metalstm", name, *map(str, arguments)]):
        return Ended(*hunting.call(__main__.main))
