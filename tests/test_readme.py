"""What the README tells a user to type works."""

import pathlib
import re
import shlex

from absl import flags

from tf_metalstm.demo import parser as demo_parser
from tf_metalstm.flags import define_flags
from tf_metalstm.reproduce import parser as reproduce_parser

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def indented_blocks():
    return [
        "\n".join(line.removeprefix("    ") for line in block.strip("\n").splitlines())
        for block in re.findall(r"(?:^(?: {4}.*)?\n)+", TEXT, flags=re.MULTILINE)
        if block.strip()
    ]


def test_the_pieces_fit_together_as_shown():
    (snippet,) = (block for block in indented_blocks() if "FunctionalLearner(" in block)
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["method"].learner.num_outputs == 5
    assert names["method"].optimizer is not None


def test_every_command_has_flags_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    joined = TEXT.replace("\\\n", " ")
    commands = re.findall(r"python -m tf_metalstm\.(\w+)\s+(--.*)", joined)
    own = {"demo": demo_parser(), "reproduce": reproduce_parser()}
    assert {name for name, _ in commands} == {"train", "evaluate", "visualize", "export", *own}
    for name, arguments in commands:
        if name in own:
            own[name].parse_args(shlex.split(arguments))
            continue
        values = flags.FlagValues()
        define_flags(values)
        values(["command", *arguments.split("#")[0].split()])


def test_every_file_it_names_is_there():
    for path in re.findall(
        r"\]\(((?!http)[^)\s]+)\)|`((?:docs|export|flags|tf_metalstm)/[^`]+)`", TEXT
    ):
        assert (ROOT / (path[0] or path[1])).exists(), path
