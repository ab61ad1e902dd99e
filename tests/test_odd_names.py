"""Tests names that are no text, unprintable, formulas or huge, as fuzzing found them."""

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import toy_images
from export_client import client, folders, grpc_client, rest, to_lite
from PIL import Image

from tf_metalstm import argv, flagfiles, flags, reproduce
from tf_metalstm.confusion import Confusion
from tf_metalstm.data.sources.base import MissingDataError
from tf_metalstm.data.sources.mini_imagenet import MiniImagenet
from tf_metalstm.data.sources.omniglot import Omniglot
from tf_metalstm.settings import make_settings
from tf_metalstm.visualization.confusion import confusion_figure
from tf_metalstm.visualization.fits import Fit, fit_figure
from tf_metalstm.visualization.words import name_in_figure

NO_TEXT = os.fsdecode(b"caf\xe9")
NAMES = [NO_TEXT, "$x^$", "a$b$_", "a\nb", "\x1b[31m", "x" * 255, "\u202ea", "{0}%s", "<b>"]


@pytest.fixture(autouse=True)
def _no_progress_bars():
    tfds.disable_progress_bar()


@pytest.mark.parametrize("name", NAMES)
def test_classes_and_files_of_any_name_are_prepared(tmp_path, name):
    picture = toy_images.encode(np.zeros((8, 8, 3), np.uint8), "PNG")
    name = name[:200]
    for split in ("train", "test"):
        toy_images.write_folder(tmp_path / "raw", {f"{split}/{name}{split}/{name}.png": picture})
    source = MiniImagenet(tmp_path / "raw", tmp_path / "prepared", image_size=8)
    assert source.class_names("train") == (f"{name}train",)
    assert source.load("test").images.shape == (1, 8, 8, 3)
    source.describe().encode()


def test_alphabets_of_any_name_are_split(tmp_path):
    drawing = toy_images.encode(np.zeros((8, 8), np.uint8), "PNG")
    for part in ("background", "evaluation"):
        path = f"images_{part}/{NO_TEXT}{part}/character01/0001_01.png"
        toy_images.write_folder(tmp_path / "raw", {path: drawing})
    source = Omniglot(tmp_path / "raw", tmp_path / "prepared", image_size=8)
    assert NO_TEXT in source.class_names("train")[0]


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path):
    (tmp_path / "images_evaluation").mkdir()
    (tmp_path / "images_background").touch()
    with pytest.raises(MissingDataError, match="nor the folder images_background is in"):
        Omniglot(tmp_path, tmp_path / "prepared").prepare()


def confusion(names):
    found = Confusion(names)
    found.counts += 1
    found.met += 2
    return found


@pytest.mark.parametrize("name", NAMES)
def test_names_are_drawn_as_they_are(name):
    x = np.linspace(0, 1, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # names that leave no room would cause a warning
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the font lacks these characters
        confusion_figure(confusion([name, "other"]), "run $x^ of").savefig(io.BytesIO())
        fits = [Fit(x, x, np.zeros((1, 2)), {0: x})]
        fit_figure({name: fits}, "run $x^ of").savefig(io.BytesIO())
    assert len(name_in_figure(name)) <= 40
    assert "\n" not in name_in_figure(name)


def test_paths_that_are_no_text_are_kept_by_a_run(tmp_path):
    settings = make_settings({"source": "omniglot", "data_dir": f"/{NO_TEXT}"})
    flags.write_settings(settings, tmp_path)
    assert flags.read_settings(tmp_path).get("data_dir") == f"/{NO_TEXT}"


@pytest.mark.parametrize("name", ["run_dir", "prepared_dir"])
def test_folders_that_tensorflow_writes_to_have_names_of_text(tmp_path, name):
    def use():
        if name == "run_dir":
            flags.parse_settings([f"--run_dir={NO_TEXT}"])
        Omniglot(tmp_path, tmp_path / NO_TEXT)._make_prepared_dir()

    with pytest.raises(ValueError, match=rf"{name}=.*caf\\udce9 is not UTF-8 text, which Tensor"):
        use()


def test_the_home_of_nobody_is_no_run():
    assert argv.named_modules(["train", "--run_dir=~nobody9"]) == []


@pytest.mark.parametrize("end", ["\u2028", "\x0b", "\x85"])
def test_only_an_end_of_a_line_is_one(tmp_path, end):
    Path(tmp_path, "a.flags").write_text(f"--x=a{end}b\n--y=c\n")
    assert flagfiles.expand([f"--flagfile={tmp_path}/a.flags"]) == [f"--x=a{end}b", "--y=c"]


def test_answers_about_files_of_any_name_are_printed(capfd):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folders.sys, "stdout", stream)
        folders.print_any_name()
        print(NO_TEXT)
    stream.flush()
    assert stream.buffer.getvalue() == b"caf\\udce9\n"


@pytest.mark.parametrize("module", [client, grpc_client, rest, to_lite, reproduce])
def test_every_program_prints_names_that_are_not_text(module, monkeypatch):
    def called():
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "print_any_name", called)
    with pytest.raises(KeyboardInterrupt):
        module.main(["--no-such-flag"])


def test_every_command_prints_names_that_are_not_text(monkeypatch):
    monkeypatch.setattr(flags.sys, "argv", ["evaluate", "--run_dir=nowhere"])
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(flags.sys, "stdout", stream)
    with pytest.raises(SystemExit):
        flags.run_command(lambda settings: None, continues_a_run=True)
    assert stream.errors == "backslashreplace"


def test_to_lite_names_a_folder_that_is_no_text(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"")
    monkeypatch.setattr(to_lite, "convert", lambda *_: b"converted")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(folders.sys, "stdout", stream)
    assert to_lite.main([f"--model={tmp_path / 'model'}", f"--out={tmp_path / NO_TEXT}"]) == 0
    stream.flush()
    assert b"caf\\udce9/predict" in stream.buffer.getvalue()


def test_pictures_of_any_name_are_read(tmp_path):
    for name in NAMES:
        folder = tmp_path / name / "in"
        folder.mkdir(parents=True)
        Image.new("L", (3, 3)).save(folder / f"{name[:200]}.png")
    assert sorted(folders.class_files(tmp_path)) == sorted(NAMES)


@pytest.mark.parametrize("text", ["a\nb", " a", "a ", "\n", "a\n--seed=1"])
def test_a_text_that_run_flags_would_lose_is_refused(text):
    with pytest.raises(ValueError, match="must be one line without spaces at its ends"):
        flags.parse_settings([f"--example_dir={text}"])
    assert flags.parse_settings(["--learner=mlp", "--hidden_layers=3, 4"]).get("hidden_layers") == (
        3,
        4,
    )
