"""Runs a check on random examples for a given time, and reduces those that fail."""

import contextlib
import io
import itertools
import signal
import sys
import time
import traceback

import hypothesis
import hypothesis.errors

LONGEST = 60  # seconds for an example; on a busy machine that may be little work
A_WHILE = 60  # seconds for a hundred examples, or for reducing one


class Find(Exception):
    """A failure. The first line says what happened."""


def hunt(check, examples, seconds, seed=0):
    """Runs a check on examples.

    Args:
        check: function of an example; raises a Find.
        examples: a strategy of hypothesis.
        seconds: how long to run.
        seed: seed of the examples.

    Returns:
        The number of examples, and a list of finds, each with its smallest example.
    """
    end, number, finds = time.monotonic() + seconds, 0, {}
    while time.monotonic() < end:
        seed += 1
        count, failed = _some(check, examples, seed, min(end, time.monotonic() + A_WHILE))
        number += count
        if failed:
            text, example = failed[-1]  # hypothesis ends with the smallest example
            finds.setdefault(text.partition("\n")[0], f"{text}\n{example!r}")
    return number, list(finds.values())


def _some(check, examples, seed, end):
    """Returns the number of examples, and the failures up to the smallest one."""
    count, failed = itertools.count(), []

    @hypothesis.settings(
        max_examples=100,
        deadline=None,
        database=None,
        derandomize=False,
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.seed(seed)
    @hypothesis.given(examples)
    def run(example):
        if time.monotonic() > end:
            return  # stops the search for a smaller example
        next(count)
        try:
            with _no_longer_than(LONGEST):
                check(example)
        except Find as find:
            failed.append((str(find), example))
            raise

    with contextlib.suppress(Find, hypothesis.errors.Flaky):
        run()
    return next(count), failed


def call(function, *arguments):
    """Calls a main function with its own streams, as in a process of its own.

    Returns:
        Its exit code, its output and its errors.

    Raises:
        Find: it ended in a traceback.
    """
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = function(*arguments) or 0
        except SystemExit as ended:
            code = ended.code or 0
            if isinstance(code, str):  # as the interpreter does
                print(code, file=sys.stderr)
                code = 1
        except Find:
            raise
        except BaseException as error:
            raise Find(_where(error)) from error
    out.flush()
    err.flush()
    return code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()


def report(kind, number, finds):
    """Prints the results. Returns whether there were finds."""
    print(f"{kind}: {number} examples, {len(finds)} finds", flush=True)
    for find in finds:
        print(f"{kind}: {find}\n", flush=True)
    return bool(finds)


def _where(error):
    last = traceback.extract_tb(error.__traceback__)[-1]
    first = f"{type(error).__name__} at {last.filename.rpartition('/')[2]}:{last.lineno}"
    return f"{first}\n" + "".join(traceback.format_exception(error))[-3000:]


@contextlib.contextmanager
def _no_longer_than(seconds):
    def stop(number, frame):
        last = traceback.extract_stack(frame)[-1]
        raise Find(f"takes longer than {seconds} s at {last.filename}:{last.lineno}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
