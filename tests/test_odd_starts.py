"""After a failed start the advice of its error works in the same folder.

Also tests that raw files may be deleted once they are prepared: no command of the run needs them.
"""

import pathlib
import re
import shutil
from typing import NamedTuple

import odd_inputs
import pytest
import tensorflow_datasets as tfds
import tiny_model
import toy
import toy_images
from fresh_run import fresh_run
from in_process import call
from tiny_model import ADAPT

from tf_metalstm.settings import make_settings

DATA = ("--source=folder", "--data_dir={raw}", "--prepared_dir={here}/prepared", "--image_size=8")
TRAIN = (
    *("train", "--method=pixel_nearest_neighbor", "--max_steps=0", *DATA, "--run_dir={here}/run"),
    *("--num_query=1", "--validation_episodes=2", "--split_fractions=0.4,0.3,0.3"),
)
SMALL = ("--num_way=2", "--num_shot=1")


class Start(NamedTuple):
    """A command line that fails, its error, and one that works in the same place."""

    first: tuple[str, ...]
    said: str
    then: tuple[str, ...]


STARTS = {
    "a class with 3 images": Start(
        (*TRAIN, "--num_way=2", "--num_shot=5"),
        r"Class \S+ of \S+ has 3 images but an episode needs 6 of each class .* lower --num_shot",
        (*TRAIN, *SMALL),
    ),
    "fewer classes than ways": Start(
        (*TRAIN, "--num_way=9", "--num_shot=1"), "lower --num_way", (*TRAIN, *SMALL)
    ),
    "no raw data": Start(
        (*TRAIN, *SMALL, "--data_dir={here}/nowhere"),
        r"folder: the --data_dir \S+/nowhere is not a folder\. ",
        (*TRAIN, *SMALL),
    ),
    "another home": Start(
        (*TRAIN, *SMALL, "--data_dir=~nobody-here/x"), "no home folder", (*TRAIN, *SMALL)
    ),
    "no source": Start(
        (*TRAIN, *SMALL, "--class_split=folders"), "train, validation", (*TRAIN, *SMALL)
    ),
    "a size that no network takes": Start(
        (*TRAIN, *SMALL, "--image_size=0"),
        "--image_size=0: must be a whole number at least 1, got 0",
        (*TRAIN, *SMALL),
    ),
    "a flag that does nothing": Start(
        (*TRAIN, *SMALL, "--pretrained_run_dir={here}"), "does nothing with", (*TRAIN, *SMALL)
    ),
    "an image that is damaged": Start(
        (*TRAIN, *SMALL, "--data_dir={damaged}"),
        r"e/0\.png is not a readable image .* with --skip_corrupt",
        (*TRAIN, *SMALL, "--data_dir={damaged}", "--skip_corrupt", "--skip_small_classes"),
    ),
    "too many ways in an evaluation": Start(
        ("evaluate", "--run_dir={toys}", "--num_episodes=2", "--num_way=50"),
        "lower --num_way",
        ("evaluate", "--run_dir={toys}", "--num_episodes=2"),
    ),
    "an export of weights that are not there": Start(
        ("export", "--run_dir={toys}", "--checkpoint=last"),
        "has no last weights yet",
        ("export", "--run_dir={toys}"),
    ),
    "a classifier without queries": Start(
        (*ADAPT, "--query={here}/nowhere", "--save={here}/classifier"),
        "there is no such file or folder",
        (*ADAPT, "--save={here}/classifier"),
    ),
    "answers without queries": Start(
        (*ADAPT, "--query={here}/nowhere", "--csv={here}/a.csv"),
        "there is no such file or folder",
        (*ADAPT, "--csv={here}/a.csv"),
    ),
    "no model to convert": Start(
        ("to_lite", "--model={here}", "--out={here}/lite"),
        "is no exported model",
        (*ADAPT, "--save={here}/lite"),
    ),
    "a table of no such rows": Start(
        ("reproduce", "--table=omniglot", "--print_only", "--only=no", "--runs_dir={here}/r"),
        "is in no name of a run",
        ("reproduce", "--table=omniglot", "--print_only", "--runs_dir={here}/r"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns runs, a model and pictures, by name."""
    folder = tmp_path_factory.mktemp("made")
    tfds.disable_progress_bar()
    files = toy_images.folder_files(images=3)
    toy_images.write_folder(folder / "raw", files)
    toy_images.write_folder(folder / "damaged", {**files, "e/0.png": b"no image"})
    fresh_run(toy.settings(folder / "toys", method="pixel_nearest_neighbor"))
    tiny_model.write(folder / "model")
    odd_inputs.ordinary(folder)
    return folder


@pytest.fixture
def places(made, tmp_path, untraced):
    shutil.copytree(made / "toys", tmp_path / "toys")
    names = ("raw", "damaged", "model", "support", "query")
    return {name: made / name for name in names} | {"here": tmp_path, "toys": tmp_path / "toys"}


# Starts that fail before training reads its data are tested in
# tests/training/test_first_start.py, which is cheaper.
DEAR = {"no raw data", "another home", "no source", "a size that no network takes"}
DEAR |= {"a flag that does nothing", "fewer classes than ways", "too many ways in an evaluation"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in DEAR)) for n in STARTS]
)
def test_the_next_start_works_in_the_same_folder(name, places):
    start = STARTS[name]
    ended = call(*(part.format(**places) for part in start.first))
    assert ended.code == 1, ended
    assert re.search(start.said, ended.out + ended.err), ended
    ended = call(*(part.format(**places) for part in start.then))
    assert ended.code == 0, ended


NAMED = {
    "omniglot": toy_images.omniglot_files(drawings=4),
    "folder": toy_images.folder_files(),
    "mini_imagenet": toy_images.mini_imagenet_files(images=4),
}
RATES = {"method": "gradient_based", "rule": "sgd", "num_steps": 1, **toy.MLP}
GONE = {
    "evaluate": ("--num_episodes=2", "--split=train"),
    "export": ("--example_dir=episode",),
    "visualize": ("--num_episodes=1", "--split=train"),
    "search": ("--grid=inner_rate=0.1|0.2",),
}


@pytest.fixture
def moved(request, tmp_path, untraced, monkeypatch):
    """A run whose raw files are gone, in another folder. The path of the files was relative."""
    source, options = request.param
    tfds.disable_progress_bar()
    monkeypatch.chdir(tmp_path)
    toy_images.write_folder("raw", NAMED[source])
    said = {"source": source, "data_dir": "raw", "prepared_dir": str(tmp_path / "prepared")}
    said |= {"num_way": 1 if source == "mini_imagenet" else 2, "num_shot": 1, "num_query": 1}
    said |= {"image_size": 8, "validation_episodes": 2, **options}
    said |= {"split_fractions": (0.4, 0.3, 0.3)} if source == "folder" else {}
    fresh_run(make_settings(said).placed(tmp_path / "run"))
    shutil.rmtree("raw")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "run"


def asks(run, name):
    ended = call(name, f"--run_dir={run}", *GONE[name])
    assert ended.code == 0, ended
    if name == "export":
        assert len(list(pathlib.Path("episode").rglob("*.png"))) >= 2


PIXELS = {"method": "pixel_nearest_neighbor"}


@pytest.mark.parametrize(
    "moved", [("omniglot", PIXELS), ("folder", PIXELS)], indirect=True, ids=lambda each: each[0]
)
def test_raw_files_may_go_after_preparation(moved):
    for name in ("evaluate", "export"):
        asks(moved, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moved", [("omniglot", RATES), ("folder", RATES)], indirect=True, ids=lambda each: each[0]
)
def test_raw_files_may_go_after_preparation_of_a_run_with_updates(moved):
    for name in GONE:
        asks(moved, name)
