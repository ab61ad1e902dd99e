"""A full disk, a read-only place and Ctrl-C: every command ends with one sentence.

No partial file stays. tests/test_failures.py tests single functions.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import types
from typing import NamedTuple

import odd_inputs
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tiny_model
import toy
import toy_images
from export_client import lite_page
from fresh_run import fresh_run
from in_process import call
from test_failures import NO_ROOM, no_room
from tiny_model import ADAPT

from tf_metalstm.__main__ import CLIENTS
from tf_metalstm.comparison import keras_optimizers
from tf_metalstm.data.sources import builder
from tf_metalstm.settings import make_settings

# A folder of the kernel, where not even root may write.
NOBODYS = pathlib.Path("/sys/kernel")
BOWLS = {"source": "quadratics", "quadratic_size": 2, "method": "learned_optimizer", "rule": "sgd"}
BOWLS |= {"num_steps": 2, "max_steps": 0, "validation_episodes": 2, "deterministic": False}
PLACES = ("support", "query", "model", "raw", "classifier", "node_modules")


class Work(NamedTuple):
    """A command that writes.

    line: the command line. "{out}" is the folder for its output.
    place: the folder where it writes; "{out}" if the command line names it.
    may_stay: the files that may stay when it fails. Only the empty lock file of a run always does.
    """

    line: tuple[str, ...]
    place: str = "{out}"
    may_stay: frozenset[str] = frozenset()


WORK = {
    "train": Work(
        ("train", "--source=sine", "--learner=mlp", "--hidden_layers=4", "--num_steps=1",
         "--deterministic=false", "--validation_episodes=2", "--max_steps=0", "--run_dir={out}/r"),
        may_stay=frozenset({"out/r/.lock"}),
    ),
    "prepare": Work(
        ("train", "--source=omniglot", "--image_size=8", "--method=pixel_nearest_neighbor",
         "--data_dir={raw}", "--prepared_dir={out}", "--num_way=2", "--num_shot=1",
         "--num_query=1", "--validation_episodes=2", "--run_dir={here}/new"),
    ),
    "evaluate": Work(("evaluate", "--run_dir={toys}", "--num_episodes=2"), "{toys}/evaluation"),
    "export": Work(("export", "--run_dir={toys}"), "{toys}/saved_model"),
    "visualize": Work(("visualize", "--run_dir={sine}", "--num_episodes=1"), "{sine}/figures"),
    "search": Work(
        ("search", "--run_dir={sine}", "--grid=num_evaluation_steps=1|2"), "{sine}"
    ),
    "compare_optimizers": Work(
        ("compare_optimizers", "--run_dir={bowls}", "--num_episodes=2", "--baselines=SGD"),
        "{bowls}/comparison",
    ),
    "reproduce": Work(
        ("reproduce", "--table=omniglot", "--print_only", "--runs_dir={out}"),
    ),
    "adapt --csv": Work((*ADAPT, "--csv={out}/a.csv")),
    "adapt --json": Work((*ADAPT, "--json={out}/a.json")),
    "adapt --html": Work((*ADAPT, "--html={out}/a.html")),
    "adapt --save": Work((*ADAPT, "--save={out}/classifier")),
    "predict --csv": Work(
        ("adapt", "predict", "--classifier={classifier}", "--query={query}", "--csv={out}/p.csv"),
    ),
    "to_lite": Work(
        ("to_lite", "--model={classifier}", "--out={out}/lite", "--page={node_modules}"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs, a model, a classifier and pictures, by name."""
    folder = tmp_path_factory.mktemp("made")
    tfds.disable_progress_bar()
    fresh_run(make_settings(toy.SINE).placed(folder / "sine"))
    fresh_run(toy.settings(folder / "toys", method="pixel_nearest_neighbor"))
    fresh_run(make_settings(BOWLS).placed(folder / "bowls"))
    tiny_model.write(folder / "model")
    odd_inputs.ordinary(folder)
    toy_images.write_folder(folder / "raw", toy_images.omniglot_files())
    places = {name: folder / name for name in PLACES}
    for package, names in lite_page._LITERT.items():
        toy_images.write_folder(
            folder / "node_modules" / "@litertjs" / package, dict.fromkeys(names, b"1")
        )
    given = [part.format(**places) for part in ADAPT]
    assert call(*given, f"--save={folder / 'classifier'}").code == 0
    return folder


class NoConverter:
    """Stands for the converter of LiteRT, which takes long."""

    def __init__(self, *_, **__):
        self.target_spec = types.SimpleNamespace()

    from_saved_model = from_concrete_functions = classmethod(lambda cls, *_, **__: cls())

    def convert(self):
        return b"model"


class Case(NamedTuple):
    """A command in its own folder: the folder, the command line, and as in `Work`."""

    root: pathlib.Path
    line: list[str]
    place: pathlib.Path
    may_stay: frozenset[str]


@pytest.fixture
def case(request, made, tmp_path, untraced, monkeypatch):
    work = WORK[request.param]
    monkeypatch.setattr(tf.lite, "TFLiteConverter", NoConverter)
    monkeypatch.setattr(keras_optimizers, "RATES", (0.01, 0.1))
    places = {name: made / name for name in PLACES}
    for name in ("sine", "toys", "bowls"):
        if f"{{{name}}}" in " ".join(work.line):
            shutil.copytree(made / name, tmp_path / name)
        places[name] = tmp_path / name
    places |= {"out": tmp_path / "out", "here": tmp_path}
    (tmp_path / "out").mkdir()
    line = [part.format(**places) for part in work.line]
    return Case(tmp_path, line, pathlib.Path(work.place.format(**places)), work.may_stay)


def fails(case, code, said):
    """Checks that the command ends with this exit code and a sentence, and changes no file."""
    before = toy.contents(case.root)
    ended = call(*case.line)
    assert ended.code == code, ended
    assert re.search(said, ended.sentence), ended
    assert len(ended.sentence) < 400, ended
    assert "Graph execution error" not in ended.out + ended.err
    after = toy.contents(case.root)
    assert before.keys() <= after.keys()
    left = {path for path, what in after.items() if what != before.get(path)}
    assert left <= case.may_stay, left - case.may_stay


def next_start(case):
    """Checks that nothing stays in the way of a client, which overwrites nothing."""
    if case.line[0] in CLIENTS:
        ended = call(*case.line)
        assert ended.code == 0, ended


def some(*without, dear=("compare_optimizers", "evaluate", "search", "visualize")):
    """Returns the commands, without some. Expensive commands are marked as slow tests."""
    marks = {name: [pytest.mark.slow] if name in dear else [] for name in WORK}
    return [pytest.param(name, marks=marks[name]) for name in WORK if name not in without]


@pytest.mark.parametrize("case", some(dear=["visualize"]), indirect=True)
def test_a_full_disk(case):
    with no_room():
        fails(case, 1, rf"cannot be written.*({NO_ROOM})")
    next_start(case)


@pytest.mark.parametrize("case", ["to_lite"], indirect=True)
def test_a_disk_that_has_room_for_some_files_of_a_page(case):
    with no_room(4096):
        fails(case, 1, rf"/page/\S+ cannot be written.*({NO_ROOM})")
    next_start(case)


# `export` and `search` are left out: they write into the folder of the run, which they must read.
@pytest.mark.parametrize("case", some("export", "search"), indirect=True)
def test_a_place_where_nobody_may_write(case):
    if case.place.is_dir():
        case.place.rmdir()
    case.place.symlink_to(NOBODYS)
    fails(case, 1, r"cannot be written|not permitted|denied|Read-only")
    case.place.unlink()
    case.place.mkdir()
    next_start(case)


def stopped(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)


@contextlib.contextmanager
def ctrl_c():
    """Sends Ctrl-C when all files are written, and none is at its final place."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("replace", "rename"):
            patched.setattr(pathlib.Path, name, stopped)
        patched.setattr(builder.ImageClassesBuilder, "_generate_examples", stopped)
        yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("case", some(), indirect=True)
def test_ctrl_c(case):
    with ctrl_c():
        fails(case, 130, r"^(SIGINT|error): stopped")
    next_start(case)
