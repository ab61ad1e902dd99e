"""Tests folders with links, loops, clutter, odd names and misplaced files."""

import os
import socket

import pytest
import toy_images

from tf_metalstm.data.sources.base import InconsistentDataError, MissingDataError
from tf_metalstm.data.sources.folders import LeftOut, files_below, is_clutter
from tf_metalstm.data.sources.mini_imagenet import MiniImagenet
from tf_metalstm.data.sources.omniglot import Omniglot
from tf_metalstm.data.sources.prepared import CACHE_VARIABLE, default_prepared_dir
from tf_metalstm.files import given_path

FILES = toy_images.mini_imagenet_files()
CSV = "filename,label\nn010.jpg,n01\nn011.jpg,n01\n"


@pytest.fixture
def raw(tmp_path):
    toy_images.write_folder(tmp_path / "raw", FILES)
    return tmp_path / "raw"


@pytest.fixture
def prepared(tmp_path):
    return tmp_path / "prepared"


def names_below(folder, left_out=None):
    return [file.relative_to(folder).as_posix() for file in files_below(folder, left_out)]


# Links


def test_linked_classes_files_and_splits_are_taken(raw, prepared, tmp_path):
    plain = MiniImagenet(raw, prepared.with_name("plain"))
    plain.prepare()
    away = tmp_path / "away"
    away.mkdir()
    for number, path in enumerate(("train/n01", "train/n02/n020.jpg", "test")):
        (raw / path).rename(away / str(number))
        (raw / path).symlink_to(away / str(number))
    linked = MiniImagenet(raw, prepared)
    assert linked.describe() == plain.describe()
    for split in ("train", "validation", "test"):
        assert linked.fingerprint_of(split) == plain.fingerprint_of(split)


LOOPS = {
    "itself": [("a/loop", "a")],
    "the parent": [("a/b/loop", "a")],
    "above all": [("a/b/loop", ".")],
    "far above": [("a/b/loop", "..")],
    "the root": [("a/loop", "/")],
    "two that go in a ring": [("a/to_c", "c"), ("c/to_a", "a")],
    "by way of a folder elsewhere": [("a/out", "../elsewhere"), ("../elsewhere/back", "a")],
    "by way of elsewhere to above": [("a/b/out", "../elsewhere"), ("../elsewhere/back", ".")],
    "a link to a link": [("a/one", "a/two"), ("a/two", "a")],
}


@pytest.mark.parametrize("links", LOOPS.values(), ids=LOOPS.keys())
def test_loops_of_links_end(tmp_path, links):
    folder = tmp_path / "folder"
    toy_images.write_folder(folder, {"a/1.png": b"", "a/b/2.png": b"", "c/3.png": b""})
    toy_images.write_folder(tmp_path, {"elsewhere/4.png": b""})
    for link, target in links:
        (folder / link).symlink_to(folder / target)
    left_out = LeftOut(tmp_path)
    names = names_below(folder, left_out)
    assert {"a/1.png", "a/b/2.png", "c/3.png"} <= set(names)
    assert len(names) <= 8
    assert "links to a folder that they are in" in left_out.lines()[0]


def test_the_same_folder_linked_twice_is_no_loop(tmp_path):
    toy_images.write_folder(tmp_path, {"there/1.png": b""})
    (tmp_path / "classes").mkdir()
    for name in ("a", "b"):
        (tmp_path / "classes" / name).symlink_to(tmp_path / "there")
    left_out = LeftOut()
    assert names_below(tmp_path / "classes", left_out) == ["a/1.png", "b/1.png"]
    assert left_out.lines() == []


def test_links_to_nothing_and_what_is_no_file_are_left_out(tmp_path, monkeypatch):
    toy_images.write_folder(tmp_path / "a", {"1.png": b""})
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "3.png").symlink_to("3.png")
    os.mkfifo(tmp_path / "a" / "4.png")
    with socket.socket(socket.AF_UNIX) as opened:
        monkeypatch.chdir(tmp_path)  # the name of a socket must be short
        opened.bind("a/5.png")
    left_out = LeftOut(tmp_path)
    assert names_below(tmp_path / "a", left_out) == ["1.png"]
    assert left_out.lines() == [
        "4 left out, broken links, or not ordinary files: a/2.png, a/3.png, a/4.png, ..."
    ]


# Clutter

CLUTTER = [
    ".DS_Store",
    "._1.png",
    ".ipynb_checkpoints/1.png",
    ".hidden/1.png",
    "@eaDir/1.png/SYNOFILE_THUMB_M.png",
    "@EADIR/1.png",
    "Thumbs.db",
    "thumbs.DB",
    "ehthumbs.db",
    "Desktop.ini",
    "__MACOSX/a/._1.png",
    "$RECYCLE.BIN/1.png",
    "System Volume Information/1.png",
    "lost+found/1.png",
    "Icon\r",
]


@pytest.mark.parametrize("name", CLUTTER)
@pytest.mark.parametrize("where", ["", "train", "train/n01"])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_clutter_is_no_class_no_image_and_said(tmp_path, where, name, kind):
    files = {"train/n01/a.bmp": toy_images.encode_gray(7), "train/n02/a.bmp": b""}
    path = os.path.join(where, name) if where or kind != "folder" else f"train/{name}"
    raw = tmp_path / "raw"
    raw.mkdir()
    if kind == "folder":
        toy_images.write_folder(raw, files | {path: b"clutter"})
    elif kind == "zip":
        toy_images.write_zip(raw / "all.zip", files | {path: b"clutter"})
    else:
        toy_images.write_tar(raw / "all.tar", files | {path: b"clutter"})
    source = MiniImagenet(raw, tmp_path / "prepared", image_size=8, skip_corrupt=True)
    assert source.counts("train") == (1, 1, 1)
    [corrupt, left_out] = source.describe().splitlines()[3:]
    assert corrupt == "mini_imagenet: 1 corrupt files left out"
    assert left_out.startswith("mini_imagenet: 1 left out, files of operating systems and oth")


@pytest.mark.parametrize(
    "name", ["n01", "Thumbs", "icon", "eaDir", "desktop", "_MACOSX", "a.b", "~"]
)
def test_ordinary_names_are_no_clutter(tmp_path, name):
    toy_images.write_folder(tmp_path / "a", {f"{name}/1.png": b""})
    assert names_below(tmp_path / "a") == [f"{name}/1.png"]


def test_the_folders_above_may_be_called_as_they_like(tmp_path, prepared):
    raw = tmp_path / ".hidden" / "@eaDir" / "train"
    toy_images.write_folder(raw, FILES)
    assert MiniImagenet(raw, prepared).counts("train").num_classes == 2


# Files in wrong places


def test_images_deeper_than_they_should_be_are_said(raw, prepared):
    toy_images.write_folder(raw, {"train/n01/sub/x.jpg": FILES["train/n01/n010.jpg"]})
    toy_images.write_folder(raw, {"train/readme.txt": b"", "train/more.tar.gz": b""})
    assert MiniImagenet(raw, prepared).describe().splitlines()[3:] == [
        "mini_imagenet: 1 left out, archives inside archives or folders (unpack them): "
        "train/more.tar.gz",
        "mini_imagenet: 1 left out, files that are not images: train/readme.txt",
        "mini_imagenet: 1 left out, images that are not at <split>/<wnid>/<file>, and in no "
        "list: train/n01/sub/x.jpg",
    ]


@pytest.mark.parametrize("part", ["", "val"])
def test_images_that_are_all_deeper_are_an_error_that_names_them(tmp_path, prepared, part):
    files = {path.replace("/n", "/more/n", 1): FILES[path] for path in FILES}
    toy_images.write_folder(tmp_path / "raw", files)
    with pytest.raises(
        MissingDataError,
        match=r"12 left out, images that are not at <split>/<wnid>/<file>.*: test/more/n04/n040",
    ):
        MiniImagenet(tmp_path / "raw", prepared).prepare()


@pytest.mark.parametrize("inner", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz"])
@pytest.mark.parametrize("outer", [".zip", ".tar"])
def test_archives_within_archives_are_an_error_that_names_them(tmp_path, prepared, inner, outer):
    (tmp_path / "raw").mkdir()
    write = toy_images.write_zip if outer == ".zip" else toy_images.write_tar
    write(tmp_path / f"raw/all{outer}", {f"data/train{inner}": b"whatever"})
    with pytest.raises(
        MissingDataError, match=rf"1 left out, archives inside archives.* data/train{inner} in "
    ):
        MiniImagenet(tmp_path / "raw", prepared).prepare()


def test_an_archive_as_data_dir_says_what_to_give(tmp_path, prepared):
    toy_images.write_zip(tmp_path / "all.zip", FILES)
    with pytest.raises(
        MissingDataError, match=r"all.zip is an archive: name the folder that the archive"
    ):
        MiniImagenet(tmp_path / "all.zip", prepared).prepare()


def test_drawings_deeper_than_they_should_be_are_said(tmp_path, prepared):
    files = toy_images.omniglot_files()
    path = "images_background/A/character01/0001_00.png"
    toy_images.write_folder(tmp_path / "raw", files)
    toy_images.write_folder(tmp_path / "raw", {path.replace("0001", "sub/1"): files[path]})
    assert Omniglot(tmp_path / "raw", prepared).describe().splitlines()[3:] == [
        "omniglot: 1 left out, images that are not at <part>/<alphabet>/<character>/"
        "<drawing>.png: images_background/A/character01/sub/1_00.png"
    ]


# Lists

BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "text",
    [
        CSV.encode(),
        BOM + CSV.encode(),
        CSV.replace("\n", "\r\n").encode(),
        BOM + CSV.replace("\n", "\r\n").encode(),
        CSV.strip().encode(),
        CSV.replace("n010.jpg", '"n010.jpg"').encode(),
        (CSV + "\n\n").encode(),
        b"number,filename,label\n0,n010.jpg,n01\n1,n011.jpg,n01\n",
    ],
)
def test_lists_of_any_editor_are_read(tmp_path, prepared, text):
    images = {f"images/{name}": FILES[f"train/n01/{name}"] for name in ("n010.jpg", "n011.jpg")}
    toy_images.write_folder(tmp_path / "raw", images | {"train.csv": text})
    assert MiniImagenet(tmp_path / "raw", prepared).counts("train") == (1, 2, 2)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_list_in_another_encoding_is_named(tmp_path, prepared, encoding):
    text = CSV.replace("n01\n", "n01ü\n").encode(encoding)
    toy_images.write_folder(tmp_path / "raw", {"images/n010.jpg": b"", "train.csv": text})
    with pytest.raises(InconsistentDataError, match=r"train.csv is not UTF-8 text: save it"):
        MiniImagenet(tmp_path / "raw", prepared).prepare()


# Paths as users type them


def test_a_folder_may_be_named_in_any_way(raw, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    raw.rename(tmp_path / "my images")
    (tmp_path / "link").symlink_to("my images")
    (tmp_path / "my cache").mkdir()
    (tmp_path / "cache").symlink_to("my cache")
    folders = ("my images", "my images/", "./my images", "~/my images", "~/link/", "link")
    caches = ("my cache", "my cache/", "~/my cache", "cache", "~/cache/", str(tmp_path / "cache"))
    for folder, cache in zip(folders, caches, strict=True):
        assert MiniImagenet(folder, cache).counts("train").num_classes == 2
        assert sorted(os.listdir(tmp_path)) == ["cache", "link", "my cache", "my images"]
    assert len(list((tmp_path / "my cache").glob("mini_imagenet/*"))) == 1


@pytest.mark.parametrize("option", ["--data_dir", "--prepared_dir"])
def test_the_home_of_nobody_is_named(option, tmp_path):
    folders = (
        ("~nobody_of_that_name/x", None) if "data" in option else (None, "~nobody_of_that_name")
    )
    with pytest.raises(ValueError, match=f"{option}=~nobody_of_that_name.*no home folder"):
        MiniImagenet(*folders)


def test_no_folder_is_none(prepared):
    for nothing in (None, ""):
        with pytest.raises(MissingDataError, match="needs a data_dir"):
            MiniImagenet(nothing, prepared).prepare()


def test_the_variable_may_begin_with_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, "~/my cache/")
    assert default_prepared_dir() == tmp_path / "my cache"
    assert given_path("~", "x") == tmp_path
    assert not is_clutter(given_path("a/b", "x"))
