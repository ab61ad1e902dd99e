"""Builds the program of export/c as users do, or so that it runs many cases in one process."""

import os
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest
from export_client import FOLDER
from made_once import made_once

needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("make")), reason="needs a C compiler and make"
)
QUIET = {"TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
_RENAMED = ("-Dmain=adapt_main", "-Dexit=leave_case", "-Dfs_load=load_once")
_RENAMED += ("-Dfs_free_model=keep_model",)
_OTHERS = ("estimate.o", "few_shot.o", "model.o", "remarks.o", "signature.o", "trust.o")


class Result(NamedTuple):
    """The exit code and the output of a case."""

    returncode: int
    stdout: str
    stderr: str


def _make(folder, *options):
    """Copies the sources into a new folder and builds there."""
    leave_out = shutil.ignore_patterns("*.o", "adapt")
    shutil.copytree(FOLDER / "c", folder, ignore=leave_out)
    command = ["make", f"PYTHON={sys.executable}", *options]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


def build(tmp_path_factory, *options):
    """Returns the program, built with options of make."""
    folder = tmp_path_factory.mktemp("export") / "c"
    _make(folder, *options)
    return folder / "adapt"


def built(tmp_path_factory):
    """Returns the program as users build it, built once for all tests."""
    return made_once(tmp_path_factory, "program", _make) / "adapt"


def built_cases(tmp_path_factory):
    """Returns a program that runs many cases, built once for all tests; see cases_harness.c."""
    return made_once(tmp_path_factory, "cases", _make_cases) / "adapt"


def _make_cases(folder):
    harness = pathlib.Path(__file__).parent / "cases_harness.c"
    _make(folder, "CFLAGS=-O0", *_OTHERS)
    renamed = " ".join(("CFLAGS=-O0", *_RENAMED))
    shutil.copy(harness, folder / "cases.c")
    for options in ([renamed, "adapt.o", "folders.o"], ["CFLAGS=-O0", "cases.o", "adapt"]):
        command = ["make", f"PYTHON={sys.executable}", "LDFLAGS=cases.o", *options]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr


def call(program, *arguments, **environment):
    """Runs the program as users do."""
    command = [str(argument) for argument in (program, *arguments)]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(command, capture_output=True, text=True, env=quiet | environment)


def call_each(program, folder, cases):
    """Runs cases, each a list of arguments, in one process. Returns the result of each."""
    fields = []
    for number, arguments in enumerate(cases):
        fields += [len(arguments), folder / f"{number}.out", folder / f"{number}.err", *arguments]
    listed = folder / "listed"
    listed.write_bytes(b"".join(os.fsencode(str(field)) + b"\0" for field in fields))
    subprocess.run([program, listed], check=True, env=os.environ | QUIET)
    return [_result(folder, number) for number in range(len(cases))]


def _result(folder, number):
    said, _, code = (folder / f"{number}.err").read_text().rpartition("exit: ")
    return Result(int(code), (folder / f"{number}.out").read_text(), said)


def answers(output):
    """Returns the names of the classes, and the rows of the table that the program printed."""
    header, *rows = (line.split("\t") for line in output.splitlines())
    assert header[:2] == ["file", "predicted"]
    return header[2:], rows
