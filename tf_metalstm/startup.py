"""How a command starts: quietly, and for --help without TensorFlow."""

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
_QUIET = "3"  # errors go unsaid too: what goes wrong reaches the user as a Python exception
# Lines that TensorFlow writes while it is imported, whatever the level: absl's notice, and what it
# says of oneDNN, CUDA and the processor.
_NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]0000 .*(port\.cc|cudart_stub|cpu_feature_guard|cuda_)"
    rb"|To enable the following instructions"
)


def prepare() -> None:
    """Sets what TensorFlow reads when it is first imported; what the user has set stays."""
    is_asked_for = os.environ.get(_LEVEL, _QUIET) != _QUIET
    # Without oneDNN, which TensorFlow switches off by itself on processors without AVX-512, a
    # meta-update at 84 x 84 took twice the processor time.
    os.environ.setdefault(_ONEDNN, "1")
    # Otherwise every command begins with a page about the processor. 0 shows it.
    os.environ.setdefault(_LEVEL, _QUIET)
    if not command():
        return
    ctrl_c.end_at_once()
    if wants_help(sys.orig_argv):
        stand_ins.use_stand_ins()
    elif not is_asked_for:
        with _without_noise():
            import keras  # noqa: F401 - and TensorFlow with it


def command() -> str:
    """Returns the module of the command of ours that this process was started for, or ""."""
    started = sys.orig_argv
    names = [Path(argument).name for argument in started]
    if "-m" in started[:-1]:
        place = started.index("-m") + 1
    elif _SCRIPT in names[:-1]:
        place = names.index(_SCRIPT)
    else:
        return ""
    if started[place].startswith("tf_metalstm."):
        return started[place]
    is_ours = started[place] == "tf_metalstm" or names[place] == _SCRIPT
    named = "".join(started[place + 1 : place + 2])
    return f"tf_metalstm.{named}" if is_ours and named in COMMANDS else ""


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Holds back what is written to standard error, and drops the lines that say nothing."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = [line for line in file.read().splitlines(True) if not _NOISE.match(line)]
            os.write(2, b"".join(lines))
