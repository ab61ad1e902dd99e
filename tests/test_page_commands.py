"""Every command and every block of Python in the pages can be typed unchanged.

Here they are only parsed, which is cheap. tests/test_page_runs.py runs them.
"""

import configparser
import re
import shlex
import sys

import pytest
from absl import flags
from export_client import client, to_lite
from page_blocks import PAGES, ROOT, blocks, commands, inline_commands, name_of

from tf_metalstm.__main__ import CLIENTS
from tf_metalstm.argv import COMMANDS
from tf_metalstm.catalogue import FAMILIES
from tf_metalstm.demo import parser as demo_parser
from tf_metalstm.flagfiles import expand
from tf_metalstm.flags import define_flags, parse_settings
from tf_metalstm.options import OptionError
from tf_metalstm.reproduce import parser as reproduce_parser
from tf_metalstm.tables.catalogue import TABLES

PARSERS = {"demo": demo_parser(), "reproduce": reproduce_parser(TABLES)}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
# Words that a reader replaces by something else.
STANDS_FOR_ANY = re.compile(r"(--\w+=)?(\.\.\.|(.*/)?[A-Z][A-Z_]*)")
ROWS = {"ROW.flags": "base.flags", "IMAGES.flags": "omniglot.flags"}


def check(command):
    """Fails unless a user can type a command: program, target, file, flags and their values."""
    for any_row, one in ROWS.items():
        command = command.replace(any_row, one)
    program, *words = shlex.split(command)
    if program == "make":
        assert {word for word in words if "=" not in word} <= TARGETS, command
    elif program == "pip":
        check_install(words)
    elif program == "npm":
        script = (ROOT / "tools/install_litert_js.sh").read_text()
        assert words[0] == "install"
        assert f"package={words[1]}@" in script, command
    elif program == "cp":
        assert (ROOT / words[0]).is_file(), command
    elif program == "tf-metalstm":
        check_command(*words)
    elif program == "python":
        check_python(*words)
    else:
        assert program in ("export", "source", "tensorboard"), f"{command}: how is it checked?"


def check_install(words):
    [requirement] = [word for word in words if word not in ("install", "-e")]
    name, extras = re.fullmatch(r"([.\w-]+)(?:\[(.*)\])?", requirement).groups()
    assert name == "." or name in SETUP["options"]["install_requires"]
    for extra in (extras or "").split(","):
        assert extra == "" or extra in SETUP["options.extras_require"], requirement


def check_python(first, *words):
    if first != "-m":
        assert (ROOT / first).is_file(), first
        if first == "export/adapt.py":
            parse_with_client(words)
        else:
            text = (ROOT / first).read_text()
            assert all(f'"{w.partition("=")[0]}"' in text for w in words if w[:2] == "--"), words
    elif words[0] == "tf_metalstm":
        check_command(*words[1:])
    elif words[0].startswith("tf_metalstm."):
        check_command(words[0].removeprefix("tf_metalstm."), *words[1:])
    else:
        assert words[0] in ("pip", "http.server")


def check_command(name, *arguments):
    """Checks a command of the package with its flags. Without flags the text only names it."""
    if STANDS_FOR_ANY.fullmatch(name):
        return
    assert name in {*COMMANDS, *CLIENTS, "recipes"}, name
    typed = [a for a in arguments if a.startswith("-") and not STANDS_FOR_ANY.fullmatch(a)]
    if name == "to_lite":
        to_lite._parser().parse_args([argument.strip("[]") for argument in arguments])
    elif name in CLIENTS:
        if arguments:
            parse_with_client(arguments)
    elif name in PARSERS:
        known = {o for action in PARSERS[name]._actions for o in action.option_strings}
        assert {argument.partition("=")[0] for argument in typed} <= known
    elif name == "train":
        parse_settings([argument for argument in typed if argument != "--help"])
    elif name != "recipes":
        values = flags.FlagValues()
        define_flags(values)
        values(["command", *expand([argument for argument in typed if argument != "--help"])])


def parse_with_client(words):
    command = words[0] if words and words[0] in ("check", "predict") else ""
    try:
        client._parser(command).parse_args(words[1:] if command else words)
    except SystemExit:
        pytest.fail(f"export/adapt.py does not take {words}")


@pytest.fixture
def examples(monkeypatch):
    """Changes to the folder of the clone, where examples can be imported; removes their parts."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    before = {family.name: family.names() for family in FAMILIES.values()}
    yield
    for module in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[module]
    for family in FAMILIES.values():
        for name in set(family.names()) - set(before[family.name]):
            family.remove(name)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_can_be_typed(page, examples):
    text = page.read_text()
    for block in blocks(text):
        for command in commands(block.text) if block.kind == "shell" else ():
            check(command)
    for command in inline_commands(text):
        check(command)


def test_commands_and_python_are_found():
    """Without commands the test above would pass without testing anything."""
    kinds = [block.kind for page in PAGES for block in blocks(page.read_text())]
    assert kinds.count("shell") > 60
    assert kinds.count("python") >= 6
    text = (ROOT / "docs" / "pictures.md").read_text()
    lines = [c for b in blocks(text) if b.kind == "shell" for c in commands(b.text)]
    assert "python -m tf_metalstm.export --run_dir=runs/photos" in lines
    assert any(line.startswith("python export/adapt.py check --model MODEL") for line in lines)
    assert not any("#" in line for line in lines)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_hides_in_a_block_of_text(page):
    text = "\n".join(block.text for block in blocks(page.read_text()) if block.kind == "text")
    assert not re.search(r"^(python|pip|make|tf-metalstm) ", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "command",
    [
        "make everything",
        "pip install -e '.[photographs]'",
        "cp docs/examples/my_other.py .",
        "python export/adapt.py --model MODEL --support DIR --queries DIR",
        "python benchmarks/run.py --outfile=FILE",
        "tf-metalstm trian --run_dir=RUN",
        "tf-metalstm train --recipe=omniglot_5way_1sht",
        "python -m tf_metalstm.evaluate --run_dir=RUN --num_episodes=many",
        "python -m tf_metalstm.demo --modle models/omniglot_5way_5shot",
        "curl https://example.org",
    ],
)
def test_a_wrong_command_is_found(command, examples):
    with pytest.raises((AssertionError, pytest.fail.Exception, ValueError, flags.Error)):
        check(command)


def test_a_flag_without_effect_is_found(examples):
    with pytest.raises(OptionError, match="it belongs to method=matching_networks"):
        check("python -m tf_metalstm.train --rule=sgd --cosine_scale=2 --run_dir=RUN")
