"""Runs commands of the package, each in its own process that already has TensorFlow.

An import of TensorFlow takes four seconds of processor time, and the tests start some twenty
commands. So they are forked from the server of `multiprocessing`, which has imported what all
commands import, and has done nothing else. Such a process is like one of `python -m`.
"""

import multiprocessing
import os
import pathlib
import resource
import runpy
import sys
import tempfile
from multiprocessing import forkserver

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The commands are not in this list, because each runs as a module that is not imported yet.
_IMPORTED = ["tensorflow", "keras", "tf_metalstm.experiment", "tf_metalstm.training.outer_loop"]
_CONTEXT = multiprocessing.get_context("forkserver")


class Command:
    """`python -m MODULE ARGUMENTS...` in the root of the clone, with methods of `subprocess.Popen`.

    Args:
        module: name of the module, such as "tf_metalstm.train".
        arguments: arguments of the command line.
        environment: further environment variables.
        limit_bytes: the largest size of a file that it may write.
    """

    def __init__(self, module, *arguments, environment=None, limit_bytes=None):
        _start_server()
        descriptor, self._output = tempfile.mkstemp()
        os.close(descriptor)
        given = (module, arguments, {**os.environ, **(environment or {})}, limit_bytes)
        self._process = _CONTEXT.Process(target=_run, args=(self._output, *given), daemon=True)
        self._process.start()

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        self._process.kill()

    def output(self):
        """Returns its output and errors so far."""
        return pathlib.Path(self._output).read_text()

    def finish(self, code=0, seconds=300):
        """Waits for its end, and returns its output and errors."""
        self._process.join(seconds)
        if self._process.is_alive():
            self.kill()
            pytest.fail(f"It still ran after {seconds} s, and said: {self.output()}")
        output = self.output()
        os.unlink(self._output)
        assert self.returncode == code, output
        return output


def _start_server():
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        _CONTEXT.set_forkserver_preload(_IMPORTED)
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(output, module, arguments, environment, limit_bytes):
    descriptor = os.open(output, os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    if limit_bytes:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (limit_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        )
    sys.argv = [module, *map(str, arguments)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
