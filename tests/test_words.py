"""Errors about common mistakes name the thing in the user's words, and a remedy."""

import os
import re
import zipfile
from pathlib import Path, PurePosixPath

import keras
import pytest
import toy_images
from export_client import folders

from tf_metalstm import experiment, flags
from tf_metalstm.data.sources.base import CorruptImageError, InconsistentDataError
from tf_metalstm.data.sources.mini_imagenet import MiniImagenet
from tf_metalstm.data.sources.staging import Staging
from tf_metalstm.options import OptionError
from tf_metalstm.runs import check_settled
from tf_metalstm.settings import make_settings
from tf_metalstm.training.checkpoints import OtherWeightsError, RunCheckpoints

PARTS = {
    "conv4": {},
    "mlp": {"learner": "mlp"},
    "matching": {"method": "matching_networks"},
    "nearest": {"method": "nearest_neighbor"},
}


@pytest.mark.parametrize(
    ("parts", "name", "value"),
    [
        ("conv4", "filters", 64),
        ("conv4", "downsampling", "stride"),
        ("conv4", "features", "mean"),
        ("conv4", "batch_norm_scale", False),
        ("conv4", "hidden_units", 9),
        ("conv4", "num_outputs", 7),
        ("conv4", "image_size", 20),
        ("mlp", "hidden_layers", (3,)),
        ("mlp", "mlp_batch_normalization", True),
        ("matching", "full_context", True),
        ("nearest", "num_training_classes", 12),
    ],
)
def test_what_sizes_a_network_is_settled_when_its_training_begins(parts, name, value):
    trained = make_settings({"source": "mini_imagenet", **PARTS[parts]}, "run")
    with pytest.raises(
        OptionError, match=rf"^{name} cannot change after training began, and the run"
    ):
        check_settled(trained, trained.changed(**{name: value}))


def network(*widths):
    layers = [keras.layers.Dense(width, name=f"layer_{i}") for i, width in enumerate(widths)]
    return keras.Sequential([keras.Input([2]), *layers], name="network")


@pytest.mark.parametrize("which", ["last", "best"])
@pytest.mark.parametrize(
    ("now", "differs"),
    [
        ((3,), r"network\.layer_0\.kernel has the shape \[2, 4\], not \[2, 3\]"),
        ((4, 1), r"network\.layer_1\.kernel is missing"),
        ((5, 1), r"network\.layer_0\.kernel has the shape \[2, 4\], not \[2, 5\]"),
    ],
)
def test_weights_of_another_network_are_named(tmp_path, which, now, differs):
    before = RunCheckpoints(tmp_path, network(4))
    before.save_best(0.5, 1)
    before.save(1, 0.0)
    with pytest.raises(OtherWeightsError) as said:
        RunCheckpoints(tmp_path, network(*now)).restore(which)
    assert re.search(
        rf"step-1 does not fit the method: {differs}\. The options that", str(said.value)
    )
    assert RunCheckpoints(tmp_path, network(4)).restore(which)


@pytest.mark.parametrize(
    ("which", "there", "advice"),
    [
        ("best", "checkpoints", "Train longer, or use checkpoint=last."),
        ("last", "best", "Train longer, or use checkpoint=best."),
        ("best", None, "its first validation. Train longer."),
        ("last", None, "its first checkpoint. Train longer."),
    ],
)
def test_weights_that_are_there_are_advised_and_no_others(tmp_path, which, there, advice):
    if there:
        (tmp_path / there).mkdir()
        (tmp_path / there / "step-1.index").touch()
    assert experiment._no_weights(str(tmp_path), which).endswith(advice)


LIST = "filename,label\na.jpg,n01\n"
MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "contents",
    [
        LIST.encode(),
        MARK + LIST.encode(),
        MARK + LIST.replace("\n", "\r\n").encode(),
        b'"filename","label"\n"a.jpg","n01"\n\n',
    ],
)
def test_lists_are_read_as_spreadsheets_write_them(tmp_path, contents):
    found = listed(tmp_path, contents).identify(PurePosixPath("images/a.jpg"))
    assert (found.group, found.class_name) == ("train", "n01")


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (LIST.encode("utf-16"), r"train\.csv is not UTF-8 text: save it as CSV \(comma, UTF-8\)"),
        (b"filename,label\n\xe9.jpg,n01\n", "is not UTF-8 text: save it as"),
        (
            LIST.replace(",", ";").encode(),
            "separated by a comma; its first line is 'filename;label'",
        ),
        (
            LIST.replace(",", "\t").encode(),
            r"separated by a comma; its first line is 'filename\\tlabel'",
        ),
        (b"sep=,\n" + LIST.encode(), "separated by a comma; its first line is 'sep=,'"),
        (b"a.jpg,n01\n", "separated by a comma; its first line is 'a.jpg,n01'"),
        (b"", "separated by a comma; its first line is ''"),
    ],
)
def test_lists_that_cannot_be_read_say_how_to_save_them(tmp_path, contents, said):
    with pytest.raises(InconsistentDataError, match=said):
        listed(tmp_path, contents).identify(PurePosixPath("images/a.jpg"))


def listed(folder, contents):
    toy_images.write_folder(folder, {"train.csv": contents, "images/a.jpg": b""})
    return MiniImagenet(folder, folder / "prepared", image_size=8)


def test_a_flag_is_called_as_it_is_typed():
    with pytest.raises(CorruptImageError, match=r"leave such files out with --skip_corrupt \(in"):
        Staging("source").skip(CorruptImageError("a.jpg is damaged"))


def test_no_training_class_says_what_was_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as outer:
        outer.writestr("train.zip", b"")
    toy_images.write_folder(
        tmp_path, toy_images.part_of(toy_images.mini_imagenet_files(images=1), "val")
    )
    with pytest.raises(InconsistentDataError, match=r"none in the training split.*inside archives"):
        MiniImagenet(tmp_path, tmp_path / "prepared", image_size=8).prepare()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("OptionError: filters is settled: leave", "OptionError: --filters is settled: leave"),
        ("OptionError: learner is conv4, cannot", "OptionError: --learner is conv4, cannot"),
        ("OptionError: num_way are 3", "OptionError: --num_way are 3"),
        (
            "Other settings:\n  filters: the run has 4",
            "Other settings:\n  --filters: the run has 4",
        ),
        ("a run whose learner is conv4", "a run whose learner is conv4"),
        ("ValueError: /runs/filters is a folder", "ValueError: /runs/filters is a folder"),
    ],
)
def test_names_of_options_are_those_of_flags(message, said):
    assert flags.with_dashes(message) == said


@pytest.mark.parametrize("name", ["pictures.zip", "pictures.tar.gz", "PICTURES.ZIP"])
def test_clients_say_that_an_archive_has_to_be_unpacked(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(folders.ClientError, match=r"is an archive: unpack it\."):
        folders.class_files(tmp_path / name)
    with pytest.raises(folders.ClientError, match=r"is an archive: unpack it\."):
        folders.query_files([str(tmp_path / name)], [])


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for pattern in ("pipe", "*"):
        with pytest.raises(folders.ClientError, match="pipe is neither a file nor a folder"):
            folders.query_files([str(tmp_path / pattern)], [])


def test_an_empty_path_is_not_the_present_folder():
    for read in (folders.user_path, lambda text: folders.query_files([text], [])):
        with pytest.raises(folders.ClientError, match="a path is needed, got nothing"):
            read("")


@pytest.mark.parametrize("name", ["a" * 300, "a/" + "b" * 300])
def test_a_path_that_cannot_be_is_said(tmp_path, monkeypatch, name):
    """Newer versions of Python only say that there is no such file."""
    monkeypatch.setattr(Path, "exists", lambda path: os.path.exists(path))
    (tmp_path / "a").mkdir()
    for read in (folders.user_path, lambda text: folders.query_files([text], [])):
        with pytest.raises(folders.ClientError, match=r"cannot be used \(File name too long\)"):
            read(str(tmp_path / name))
    assert folders.user_path(str(tmp_path / "a" / "new")) == tmp_path / "a" / "new"
