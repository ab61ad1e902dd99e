"""Numbers out of range on command lines cause one sentence, and no file changes."""

import re

import pytest
import toy
from fresh_run import fresh_run
from in_process import call

from tf_metalstm.flags import parse_settings
from tf_metalstm.settings import known_options, make_settings

CONTINUE = ("evaluate", "search", "visualize", "compare_optimizers", "export")

# One line for each command: all of them check options as `parse_settings` does.
LINES = {
    "evaluate --num_episodes=-5": "must be a whole number at least 1, got -5",
    "visualize --num_episodes=1.5": "must be a whole number at least 1, got '1.5'",
    "compare_optimizers --num_episodes=0": "must be a whole number at least 1, got 0",
    "search --validation_episodes=0": "must be a whole number at least 2, got 0",
    "export --evaluation_seed=1e3": "must be a whole number at least 0 .*, got '1e3'",
    "train --dropout=1": "must be a number at least 0 and below 1, got 1",
    "reproduce --table=omniglot --num_episodes=0": "--num_episodes: must be .* at least 1, got 0",
    "reproduce --table=omniglot --max_minutes=-1": "--max_minutes: must be .* above 0, got -1",
    "reproduce --table=omniglot --num_episodes=x": "must be a whole number at least 1, got 'x'",
    "adapt --model={run} --support={run} --num_steps=1001": "from 0 to 1000, got 1001",
    "adapt --model={run} --support={run} --num_steps=-1": "from 0 to 1000, got -1",
    "adapt check --model={run} --support={run} --num_steps=": "from 0 to 1000, got nothing",
    "adapt --model={run} --support={run} --none_of_these=1.5": "none_of_these",
    "adapt predict --classifier={run} --query={run} --none_of_these=-1": "none_of_these",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns the folder of a run that has been evaluated."""
    folder = tmp_path_factory.mktemp("odd") / "run"
    fresh_run(make_settings(toy.SINE).placed(folder))
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "test.json").write_text('{"mean": 0.5}\n')
    return folder


def contents(folder):
    """Returns the bytes and the modification time of each file in a folder."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(run, name, *arguments):
    """Returns the error of a command that refused its arguments and changed no file."""
    if name in CONTINUE:
        arguments = (f"--run_dir={run}", *arguments)
    elif name == "train":
        arguments = (f"--run_dir={run.parent / 'new'}", *arguments)
    before = contents(run.parent)
    ended = call(name, *arguments)
    assert ended.code in (1, 2), ended
    assert contents(run.parent) == before
    return ended.out + ended.err


@pytest.mark.parametrize("line", LINES)
def test_a_number_out_of_range_is_refused_in_a_sentence(line, run):
    said = refused(run, *line.format(run=run).split())
    assert re.search(LINES[line], said), said


RANGED = [
    each
    for each in known_options().values()
    if any(bound is not None for bound in vars(each.range).values())
]


def outside(each):
    """Returns the nearest numbers that an option does not allow, and one of the wrong kind."""
    bounds, step = each.range, 1 if each.kind is int else 1e-6
    found = [] if bounds.at_least is None else [bounds.at_least - step]
    found += [] if bounds.at_most is None else [bounds.at_most + step]
    found += [bound for bound in (bounds.above, bounds.below) if bound is not None]
    return [*(f"{number:.17g}" for number in found), "nan" if each.kind is float else "1.5"]


def test_every_number_outside_the_range_of_its_option_is_refused():
    assert len(RANGED) >= 40
    for each in RANGED:
        for text in outside(each):
            with pytest.raises(ValueError, match="must be") as said:
                parse_settings([f"--{each.name}={text}"])
            sentence = rf"flag --{each.name}=.*: must be .*{each.range}.*, got"
            assert re.search(sentence, str(said.value)), said.value


@pytest.mark.parametrize("name", ["train", "visualize"])
def test_no_updates_at_all(name, run, tmp_path):
    """A training without updates in its inner loop is allowed. There is nothing to draw."""
    if name == "train":
        small = [f"--{key}={value}" for key, value in toy.SINE.items() if key != "hidden_layers"]
        small += ["--num_steps=0", "--hidden_layers=4", "--max_steps=0", "--validation_episodes=2"]
        ended = call("train", *small, f"--run_dir={tmp_path / 'new'}", "--deterministic=false")
        assert ended.code == 0, ended
    else:
        ended = call("visualize", f"--run_dir={run}", "--num_evaluation_steps=0")
        assert ended.code == 1, ended
        assert "no updates to draw, --num_steps is 0: set --num_evaluation_steps." in ended.err
