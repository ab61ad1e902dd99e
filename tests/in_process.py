"""Runs commands and clients in this process as a user starts them.

`tf-metalstm NAME ARGUMENTS` starts in `tf_metalstm.__main__`, which runs a module or a script as
`__main__`. The same is done here, with separate streams. Flags and signals are restored afterwards.
Deterministic operations are not switched on, because TensorFlow cannot switch them off again: later
tests of the process would run with them.
"""

import contextlib
import os
import signal
import sys
import warnings
from typing import NamedTuple
from unittest import mock

import hunting
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from tf_metalstm import __main__


class Ended(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def sentence(self):
        """The last line. A command that fails ends with one; warnings and notes come before it."""
        said = [line for line in (self.out + self.err).splitlines() if line.strip()]
        return said[-1] if said else ""


@contextlib.contextmanager
def _as_before():
    """Restores flags, signals, the import path and the current folder."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folder, parsed = os.getcwd(), flags.FLAGS.is_parsed()
    flags.FLAGS.unparse_flags()
    with (
        flagsaver.flagsaver(),
        mock.patch.object(sys, "path", [*sys.path]),
        mock.patch.object(tf.config.experimental, "enable_op_determinism"),
    ):
        try:
            yield
        finally:
            os.chdir(folder)
            if parsed:
                flags.FLAGS.mark_as_parsed()
            for number, handler in handlers.items():
                signal.signal(number, handler)


def call(name, *arguments):
    """Runs a command or client and returns how it ended.

    Raises:
        hunting.Find: it ended in a traceback.
    """
    argv = ["tf-metalstm", name, *map(str, arguments)]
    with _as_before(), mock.patch.object(sys, "argv", argv), warnings.catch_warnings():
        # Another test has imported the module that runs as the main one.
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
        return Ended(*hunting.call(__main__.main))
