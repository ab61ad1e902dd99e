"""Starts a command without TensorFlow's log messages, and --help without TensorFlow."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tf_metalstm import ctrl_c, stand_ins
from tf_metalstm.argv import COMMANDS, wants_help

_SCRIPT = "tf-metalstm"
_LEVEL, _ONEDNN = "TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"
_QUIET = "3"  # hides log messages of errors too; users see errors as Python exceptions
# Lines that TensorFlow writes at any log level while it is imported: absl's notice, and notes about
# oneDNN, CUDA and the processor.
_NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]0000 .*(port\.cc|cudart_stub|cpu_feature_guard|cuda_)"
    rb"|To enable the following instructions"
)


def prepare() -> None:
    """Sets the environment variables that TensorFlow reads on import, unless the user has set them.

    For a command of this package it also imports TensorFlow without log messages; for --help it
    installs the stand-ins.
    """
    wants_log = os.environ.get(_LEVEL, _QUIET) != _QUIET
    # TensorFlow switches oneDNN off on processors without AVX-512. Without it a meta-update at
    # 84 x 84 took twice the processor time.
    os.environ.setdefault(_ONEDNN, "1")
    # Without this every command begins with a page about the processor. 0 shows it.
    os.environ.setdefault(_LEVEL, _QUIET)
    if not command():
        return
    ctrl_c.end_at_once()
    if wants_help(sys.orig_argv):
        stand_ins.use_stand_ins()
    elif not wants_log:
        with _without_noise():
            import keras  # noqa: F401 - and TensorFlow with it


def command() -> str:
    """Returns the module of the command of this package that this process runs, or ""."""
    argv = sys.orig_argv
    names = [Path(argument).name for argument in argv]
    if "-m" in argv[:-1]:
        index = argv.index("-m") + 1
    elif _SCRIPT in names[:-1]:
        index = names.index(_SCRIPT)
    else:
        return ""
    if argv[index].startswith("tf_metalstm."):
        return argv[index]
    is_ours = argv[index] == "tf_metalstm" or names[index] == _SCRIPT
    command_name = "".join(argv[index + 1 : index + 2])
    return f"tf_metalstm.{command_name}" if is_ours and command_name in COMMANDS else ""


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Writes standard error when the context ends, without the lines of `_NOISE`."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            lines = [line for line in file.read().splitlines(True) if not _NOISE.match(line)]
            os.write(2, b"".join(lines))
