"""Tests the public names and the generated pages."""

import ast
import inspect
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from export_client import client, to_lite

import tf_metalstm
from tf_metalstm.__main__ import CLIENTS
from tf_metalstm.argv import COMMANDS
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.demo import parser as demo_parser
from tf_metalstm.flags import define_flags
from tf_metalstm.reproduce import parser as reproduce_parser
from tf_metalstm.tables.catalogue import TABLES

ROOT = pathlib.Path(__file__).resolve().parents[1]


def public_imports():
    """Returns name -> module of the imports that only type checkers see."""
    tree = ast.parse(pathlib.Path(tf_metalstm.__file__).read_text())
    [block] = [n for n in tree.body if isinstance(n, ast.If)]
    return {a.name: node.module for node in block.body for a in node.names}


def test_the_public_names_stand_in_one_list():
    modules = {name: f"tf_metalstm.{place}" for name, place in tf_metalstm._PUBLIC.items()}
    assert modules == public_imports()
    assert sorted(modules) == sorted(tf_metalstm.__all__)
    assert set(tf_metalstm.__all__) <= set(dir(tf_metalstm))


@pytest.mark.parametrize("name", tf_metalstm.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name):
    found = getattr(tf_metalstm, name)
    assert found.__name__ == name
    assert inspect.getdoc(found)
    page = (ROOT / "docs" / "api.md").read_text()
    assert f"\n::: {found.__module__}.{name}\n" in page


def test_a_name_that_there_is_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'MetaLstm'"):
        _ = tf_metalstm.MetaLstm


def test_importing_the_package_imports_no_tensorflow_and_sets_the_variables_first():
    code = (
        "import os, sys; os.environ.pop('TF_ENABLE_ONEDNN_OPTS', None); import tf_metalstm;"
        "assert not {'tensorflow', 'keras'} & {*sys.modules};"
        "assert os.environ['TF_ENABLE_ONEDNN_OPTS'] == '1'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_command_has_a_section_and_every_flag_a_row():
    page = (ROOT / "docs" / "commands.md").read_text()
    commands = {path.stem for path in (ROOT / "tf_metalstm").glob("*.py") if is_command(path)}
    commands.remove("__main__")  # it starts the commands by name
    assert commands == {*COMMANDS, "adapt"}
    commands |= {*CLIENTS}
    for command in commands:
        assert f"\n## `{command}`\n" in page
    values = flags.FlagValues()
    define_flags(values)
    parsers = [demo_parser(), reproduce_parser(TABLES), to_lite._parser()]
    parsers += [client._parser(command) for command in ("adapt", "check", "predict")]
    names = {*values, *(name for parser in parsers for name in own_flags(parser))}
    assert len(names) > 80
    assert {"calibrated", "classifier", "quantize"} <= names
    for name in names:
        assert f"| `--{name}` |" in page


def is_command(path):
    return '\nif __name__ == "__main__":\n' in path.read_text()


def own_flags(parser):
    return {action.option_strings[0].lstrip("-") for action in parser._actions} - {"h"}


def test_every_member_has_a_section():
    page = (ROOT / "docs" / "parts.md").read_text()
    members = [
        m.part.name for family in FAMILIES.values() for m in family if "toy" not in m.part.name
    ]
    assert len(members) > 10
    for member in members:
        assert f"### `{member}`" in page


def test_a_command_starts_without_the_lines_of_tensorflow(tmp_path):
    call = [sys.executable, "-m", "tf_metalstm.evaluate", f"--run_dir={tmp_path}"]
    usual = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, env=usual)
    assert done.stderr.startswith("FileNotFoundError: --run_dir=")
    assert len(done.stderr.splitlines()) == 1
