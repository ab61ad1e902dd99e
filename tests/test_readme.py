"""What the README tells a user to type works."""

import pathlib
import re

from absl import flags

from tf_metalstm.flags import define_flags

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
    assert {name for name, _ in commands} == {"train", "evaluate", "visualize", "export"}
    for _, arguments in commands:
        values = flags.FlagValues()
        define_flags(values)
        values(["command", *arguments.split("#")[0].split()])


def test_every_file_it_names_is_there():
    for path in re.findall(
        r"\]\(((?!http)[^)\s]+)\)|`((?:docs|export|flags|tf_metalstm)/[^`]+)`", TEXT
    ):
        assert (ROOT / (path[0] or path[1])).exists(), path
