"""Tests folders of a user's pictures: class folders, lists, archives, splits, duplicates."""

import io
from pathlib import PurePosixPath

import numpy as np
import pytest
import toy_images
from PIL import Image

from tf_metalstm.data.sources.base import (
    CorruptImageError,
    InconsistentDataError,
    MissingDataError,
)
from tf_metalstm.data.sources.class_folders import ClassFolders
from tf_metalstm.data.sources.class_splits import split_by_seed
from tf_metalstm.data.sources.folder import Folder
from tf_metalstm.data.sources.image_lists import read_list
from tf_metalstm.options import OptionError


def classes_of(paths, by_folders=None):
    """Returns {path: "split:class"} for the files that are in a class."""
    paths = [PurePosixPath(path) for path in paths.split()]
    folders = ClassFolders(paths, by_folders)
    found = {str(path): folders[path] for path in paths}
    return {path: ":".join(one) for path, one in found.items() if one is not None}


LAYOUTS = {
    "flat": ("cat/1.jpg dog/1.jpg", {"cat/1.jpg": ":cat", "dog/1.jpg": ":dog"}),
    "nested": ("x/cat/1.jpg y/dog/1.jpg", {"x/cat/1.jpg": ":x/cat", "y/dog/1.jpg": ":y/dog"}),
    "around all": ("all/in/cat/1.jpg all/in/dog/1.jpg README", "cat dog"),
    "deeper in a class": ("cat/1.jpg cat/a/b/2.jpg dog/1.jpg", "cat cat dog"),
    "a picture in no class": ("1.jpg all/2.jpg all/cat/3.jpg all/dog/4.jpg", "cat dog"),
    "names without suffix": ("cat/1 dog/IMG_7", "cat dog"),
    "texts in a class": ("cat/1.jpg cat/notes.txt dog/1.JPG", "cat cat dog"),
    "one class": ("in/cat/1.jpg in/cat/2.jpg", "cat cat"),
    "class called train": ("train/1.jpg car/1.jpg", "train car"),
    "splits": (
        "in/Train/cat/1.jpg in/val/dog/1.jpg in/test/x/cow/1.jpg",
        "train:cat validation:dog test:x/cow",
    ),
    "a picture in a split": ("train/1.jpg train/cat/1.jpg test/dog/1.jpg", "train:cat test:dog"),
    "beside splits": ("train/cat/1.jpg test/dog/1.jpg other/cow/1.jpg", "train:cat test:dog"),
    "no train": ("val/cat/1.jpg test/dog/1.jpg", "val/cat test/dog"),
    "train alone": ("train/cat/1.jpg train/dog/1.jpg", "train:cat train:dog"),
}


@pytest.mark.parametrize(("paths", "expected"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_folder_with_pictures_is_a_class(paths, expected):
    found = classes_of(paths)
    if isinstance(expected, dict):
        assert found == expected
    else:
        assert [one.removeprefix(":") for one in found.values()] == expected.split()


def test_a_split_of_images_is_no_split_of_classes():
    paths = "train/cat/1.jpg train/dog/1.jpg test/cat/2.jpg test/cow/1.jpg"
    with pytest.raises(InconsistentDataError, match=r"1 of 3 classes .* \(cat\).*class_split=seed"):
        classes_of(paths)
    assert list(classes_of(paths, by_folders=False).values()) == [":cat", ":dog", ":cat", ":cow"]


def test_splits_by_folders_that_are_not_there():
    with pytest.raises(InconsistentDataError, match=r"has no folder train.*class_split=seed"):
        classes_of("cat/1.jpg dog/1.jpg", by_folders=True)


def test_a_seed_splits_as_the_fractions_say():
    names = [f"class {i}" for i in range(20)]
    split = split_by_seed(names, 0, (0.5, 0.2, 0.3))
    sizes = [list(split.values()).count(each) for each in ("train", "validation", "test")]
    assert sizes == [10, 4, 6]
    assert split == split_by_seed(reversed(names), 0, (0.5, 0.2, 0.3))
    assert split != split_by_seed(names, 1, (0.5, 0.2, 0.3))
    assert set(split_by_seed(names, 0, (1.0, 0.0, 0.0)).values()) == {"train"}


@pytest.mark.parametrize("number", range(3, 12))
def test_every_split_that_is_wanted_has_a_class(number):
    names = map(str, range(number))
    split = split_by_seed(names, 0, (0.9, 0.05, 0.05))
    assert len(split) == number
    assert set(split.values()) == {"train", "validation", "test"}


def test_too_few_classes_for_the_splits():
    with pytest.raises(InconsistentDataError, match=r"2 classes found, .* split_fractions=1,0,0"):
        split_by_seed("ab", 0, (0.6, 0.2, 0.2))


@pytest.mark.parametrize("fractions", [(), (1.0,), (0.5, 0.5, 0.5), (0.0, 0.5, 0.5)])
def test_fractions_are_three_that_add_up_to_one(fractions):
    with pytest.raises(OptionError, match="must be three parts that add up to 1"):
        Folder("anywhere", split_fractions=fractions)


# Lists

ROWS = {"a/1.png": ("cat", "train"), "b/2.png": ("dog", "test")}
LISTS = {
    "labels.csv": "file,label,split\na/1.png,cat,train\nb/2.png,dog,test\n",
    "excel.csv": "\ufeffClass , Filename,set\r\ncat,a\\1.png,Train\r\ndog,b/2.png,test\r\n",
    "labels.jsonl": '{"path": "a/1.png", "category": "cat", "split": "training"}\n\n'
    '{"Path": "b/2.png", "label": "dog", "split": "test"}\n',
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(LISTS[name].encode())
    found = read_list(tmp_path / name, "folder")
    assert {str(path): tuple(one) for path, one in found.items()} == ROWS


BAD_LISTS = {
    "no label": ("x.csv", "file,kind\na,b\n", "needs a column called label, class,"),
    "semicolons": ("x.csv", "file;label\na;b\n", "commas between the columns"),
    "another label": ("x.csv", "file,label\na,b\na,c\n", "line 3 of .* a as c, but it was b"),
    "an empty label": ("x.csv", "file,label\na,\n", "line 2 of .* has no value of label"),
    "an unknown split": ("x.csv", "file,label,split\na,b,c\n", "has the split 'c': use train"),
    "half a split": ("x.csv", "file,label,split\na,b,\nc,d,test\n", "without a split beside"),
    "nothing": ("x.csv", "file,label\n", "has no image"),
    "no text": ("x.csv", "file,label\n\udcff", "not UTF-8 text"),
    "no JSON": ("x.jsonl", "a,b\n", "line 1 of .* is not a JSON object"),
    "a JSON list": ("x.jsonl", '["a", "b"]\n', "is not a JSON object"),
}


@pytest.mark.parametrize(("name", "text", "message"), BAD_LISTS.values(), ids=BAD_LISTS.keys())
def test_a_list_that_is_none_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InconsistentDataError, match=message):
        read_list(tmp_path / name, "folder")


# From files to splits; the splits are staged and not written.


def staged(folder, **options):
    return Folder(folder, folder / "nowhere", image_size=8, **options).stage()


def names_of(found):
    return {split: {n: sorted(i) for n, i in of.items()} for split, of in found.images.items()}


FILES = toy_images.folder_files("abc", images=1)
SPLITS = {"split_fractions": (0.34, 0.33, 0.33)}


@pytest.fixture
def raw(tmp_path):
    toy_images.write_folder(tmp_path / "raw", FILES)
    return tmp_path / "raw"


def test_doubles_are_left_out_and_named(raw):
    again = {"a/2.png": FILES["a/0.png"], "c/3.png": toy_images.recode(FILES["a/0.png"], "BMP")}
    toy_images.write_folder(raw, again)
    found = staged(raw)
    assert sum(len(images) for of in found.images.values() for images in of.values()) == 3
    assert found.left_out == (
        "1 left out, the same picture as one before in another class: c/3.png (as a/0.png)",
        "1 left out, the same picture as one before in its class: a/2.png (as a/0.png)",
    )


def test_what_is_no_image_is_left_out_and_what_should_be_one_is_an_error(raw):
    toy_images.write_folder(raw, {"a/notes": b"text", "a/film.mp4": b"film", "list.txt": b""})
    assert staged(raw).left_out == (
        "3 left out, files that are not images: a/film.mp4, a/notes, list.txt",
    )
    toy_images.write_folder(raw, {"a/photo.HEIC": b"whatever"})
    with pytest.raises(CorruptImageError, match=r"photo.HEIC is not a readable .*--skip_corrupt"):
        staged(raw)
    found = staged(raw, skip_corrupt=True)
    assert [one.split(" is ")[0] for one in found.skipped] == [str(raw / "a/photo.HEIC")]


def test_images_without_a_suffix_are_found_by_content(raw):
    (raw / "a" / "0.png").rename(raw / "a" / "IMG_1")
    assert {"a": ["a/IMG_1"]} in names_of(staged(raw, class_split="seed")).values()


def test_names_in_any_alphabet_and_of_any_bytes(tmp_path):
    image = FILES["a/0.png"]
    odd = {"train/caf\u0065\u0301/ 1.png": image, "train/\udcff/1.png": FILES["b/0.png"]}
    toy_images.write_folder(
        tmp_path / "raw", odd | {"train/\u733f \u732b/#1.png": FILES["c/0.png"]}
    )
    found = names_of(staged(tmp_path / "raw"))
    assert sorted(found["train"]) == sorted(["caf\u00e9", "\\xff", "\u733f \u732b"])


ARCHIVES = {
    "one": {"all.zip": ("", FILES)},
    "with a folder around": {"all.tar.gz": ("top/", FILES)},
    "one a class": {f"{name}.zip": ("", {"1.png": FILES[f"{name}/0.png"]}) for name in "abc"},
    "one a class with its folder": {
        f"{name}.tar": (f"{name}/", {"1.png": FILES[f"{name}/0.png"]}) for name in "abc"
    },
    "hostile names": {"all.tar": ("/etc/", FILES), "empty.zip": ("", {})},
}


@pytest.mark.parametrize("archives", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_archives_are_read_as_folders(tmp_path, archives):
    for name, (prefix, files) in archives.items():
        write = toy_images.write_zip if name.endswith(".zip") else toy_images.write_tar
        write(tmp_path / name, {prefix + path: content for path, content in files.items()})
    found = names_of(staged(tmp_path))
    assert sorted(name for of in found.values() for name in of) == ["a", "b", "c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(archives)


def test_an_archive_may_be_named_itself(tmp_path, raw):
    toy_images.write_zip(tmp_path / "all.zip", FILES)
    source = Folder(tmp_path / "all.zip", tmp_path / "prepared", image_size=8)
    assert source.stage().fingerprints == staged(raw).fingerprints


def test_a_locked_archive_is_said(tmp_path):
    toy_images.write_zip(tmp_path / "all.zip", FILES)
    locked = bytearray((tmp_path / "all.zip").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = locked.find(signature)
        while place >= 0:
            locked[place + offset] |= 1
            place = locked.find(signature, place + 4)
    (tmp_path / "all.zip").write_bytes(locked)
    with pytest.raises(CorruptImageError, match="password required"):
        staged(tmp_path)


def test_a_list_says_what_is_what(raw, tmp_path):
    rows = "file,label,split\na/0.png,cat,train\nb/0.png,dog,test\n"
    (raw / "labels.csv").write_text(rows)
    found = staged(raw, image_list="labels.csv")
    assert names_of(found) == {"train": {"cat": ["a/0.png"]}, "test": {"dog": ["b/0.png"]}}
    assert found.left_out == ("2 left out, not in the list: c/0.png, labels.csv",)
    toy_images.write_zip(tmp_path / "all.zip", FILES)
    zipped = Folder(tmp_path / "all.zip", image_size=8, image_list=raw / "labels.csv").stage()
    assert zipped.fingerprints == found.fingerprints


def test_files_of_a_list_that_are_missing_are_named(raw):
    (raw / "labels.csv").write_text("file,label\na/0.png,cat\nb/9.png,dog\nc/0.png,cow\n")
    with pytest.raises(MissingDataError, match=r"1 of 3 files .* the first b/9.png"):
        staged(raw, image_list="labels.csv", split_fractions=(1.0, 0.0, 0.0))
    all_of_them = {"split_fractions": (1.0, 0.0, 0.0), "skip_corrupt": True}
    found = staged(raw, image_list="labels.csv", **all_of_them)
    assert sorted(found.images["train"]) == ["cat", "cow"]
    with pytest.raises(MissingDataError, match=r"the image_list lost.csv is neither a file nor in"):
        staged(raw, image_list="lost.csv")
    with pytest.raises(InconsistentDataError, match="has no column called split"):
        staged(raw, image_list="labels.csv", class_split="folders", skip_corrupt=True)


def test_gray_is_gray(raw):
    source = Folder(raw, image_size=8, color=False)
    pixels, png = source.decode(FILES["a/0.png"], "a/0.png")
    assert pixels.shape == source.image_shape == (8, 8, 1)
    np.testing.assert_array_equal(Image.open(io.BytesIO(png)), pixels[..., 0])


def test_folders_of_splits_put_together_keep_every_picture(tmp_path):
    files = {f"train/{path}": content for path, content in FILES.items()}
    files["test/a/0.png"] = toy_images.folder_files("wxyz", images=1)["z/0.png"]
    toy_images.write_folder(tmp_path / "raw", files)
    found = staged(tmp_path / "raw", class_split="seed")
    of_a = next(of["a"] for of in found.images.values() if "a" in of)
    assert sorted(of_a) == ["test/a/0.png", "train/a/0.png"]


def test_an_empty_folder_says_what_it_must_hold(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(MissingDataError, match="a folder of image files for each class"):
        staged(tmp_path / "raw")


def test_pixels_are_squeezed_by_pillow(raw):
    pixels, jpeg = Folder(raw, image_size=8).decode(FILES["a/0.png"], "a/0.png")
    squeezed = Image.open(raw / "a" / "0.png").resize((8, 8), Image.Resampling.LANCZOS)
    assert np.abs(pixels.astype(int) - np.asarray(squeezed)).mean() < 12  # JPEG is lossy
    np.testing.assert_array_equal(pixels, Image.open(io.BytesIO(jpeg)))
