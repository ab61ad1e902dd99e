"""Tests that all layouts of mini-ImageNet give the same arrays, and that conflicts are refused."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import toy_images
from PIL import Image

from tf_metalstm.data.sources import raw_files
from tf_metalstm.data.sources.base import (
    SPLITS,
    CorruptImageError,
    InconsistentDataError,
    MissingDataError,
    Source,
)
from tf_metalstm.data.sources.mini_imagenet import MiniImagenet

FILES = toy_images.mini_imagenet_files()
CSV_SPLITS = ("train", "val", "test")


def write_folders(raw):
    toy_images.write_folder(raw, FILES)


def write_folders_with_the_other_name(raw):
    write_folders(raw)
    (raw / "val").rename(raw / "validation")


def write_one_archive(suffix, write):
    def write_archive(raw):
        write(raw / f"everything{suffix}", FILES)

    write_archive.__name__ = f"one_archive{suffix}"
    return write_archive


def write_many_archives(raw):
    """Writes several archives of a split, of several kinds, not in the order of their names."""
    for number, (path, content) in enumerate(reversed(FILES.items())):
        kind = (".tar.xz", ".tar.gz", ".tgz", ".tar")[number % 4]
        toy_images.write_tar(raw / f"part_{number:02d}{kind}", {path: content})


def flat(files):
    """Writes the flat layout: the images in one folder, and the CSV files."""
    images = {f"images/{Path(path).name}": content for path, content in files.items()}
    tables = {}
    for split in CSV_SPLITS:
        rows = [Path(path).parts for path in files if path.startswith(split)]
        lines = ["filename,label", *(f"{name},{wnid}" for _, wnid, name in rows)]
        tables[f"{split}.csv"] = "\n".join(lines).encode()
    return images, tables


def write_flat(raw):
    images, tables = flat(FILES)
    toy_images.write_folder(raw, images | tables)


def write_flat_archive(raw):
    images, tables = flat(FILES)
    toy_images.write_folder(raw, tables)
    toy_images.write_tar(raw / "images.tar.gz", images)


def write_everything_twice(raw):
    write_folders(raw)
    write_many_archives(raw)
    write_flat(raw)


LAYOUTS = [
    write_folders_with_the_other_name,
    write_one_archive(".tar.xz", toy_images.write_tar),
    write_one_archive(".tar", toy_images.write_tar),
    write_one_archive(".zip", toy_images.write_zip),
    write_many_archives,
    write_flat,
    write_flat_archive,
    write_everything_twice,
]


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def prepared(tmp_path):
    return tmp_path / "prepared"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    write_folders(folder / "raw")
    source = MiniImagenet(folder / "raw", folder / "prepared")
    return {split: source.load(split) for split in SPLITS}


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_layout_gives_the_same_arrays(raw, prepared, expected, write):
    write(raw)
    source = MiniImagenet(raw, prepared)
    for split in SPLITS:
        found = source.load(split)
        assert found.class_names == expected[split].class_names
        np.testing.assert_array_equal(found.class_sizes, expected[split].class_sizes)
        np.testing.assert_array_equal(found.images, expected[split].images)
        assert source.fingerprint_of(split) == Source.fingerprint_of(source, split)


def test_pixels_are_those_that_pillow_decodes(expected):
    images = [np.asarray(Image.open(io.BytesIO(FILES[f"train/n01/n01{i}.jpg"]))) for i in range(3)]
    np.testing.assert_array_equal(expected["train"].images[:3], images)


@pytest.mark.parametrize(
    ("image_format", "width", "mode"),
    [
        ("PNG", 200, "L"),
        ("PNG", 84, "RGB"),
        ("JPEG", 200, "RGB"),
        ("JPEG", 84, "L"),
        ("JPEG", 84, "CMYK"),
    ],
)
def test_other_sizes_are_squeezed_and_other_modes_become_rgb(
    raw, prepared, image_format, width, mode
):
    write_folders(raw)
    ramp = np.linspace(0, 255, width).astype(np.uint8)[np.newaxis].repeat(width, axis=0)
    pixels = np.asarray(Image.fromarray(ramp).convert(mode))
    encoded = toy_images.encode(pixels, image_format, mode)
    toy_images.write_folder(raw, {"test/n05/a.jpg": encoded})
    image = MiniImagenet(raw, prepared).load("test").images[3].astype(int)
    assert np.abs(image - np.linspace(0, 255, 84)[:, np.newaxis]).max() < 6


def test_what_is_there_is_taken_and_what_is_not_is_said(raw, prepared):
    toy_images.write_folder(raw, toy_images.part_of(FILES, "train"))
    (raw / "train/n02/n020.jpg").unlink()
    source = MiniImagenet(raw, prepared)
    assert source.describe().splitlines() == [
        "mini_imagenet/train: 2 classes, 5 images, at least 2 a class",
        "mini_imagenet/validation: no images",
        "mini_imagenet/test: no images",
    ]
    with pytest.raises(MissingDataError, match="has no test images, only train: add the files"):
        source.load("test")


def test_training_images_cannot_be_missing(raw, prepared):
    toy_images.write_folder(raw, toy_images.part_of(FILES, "test"))
    with pytest.raises(
        InconsistentDataError, match="3 images found, but none in the training split"
    ):
        MiniImagenet(raw, prepared).prepare()


def test_each_archive_is_opened_once_and_nothing_is_extracted(raw, prepared, monkeypatch):
    write_many_archives(raw)
    toy_images.write_tar(raw / "zz_hostile.tar", {"../../train/n09/escaped.jpg": b"no image"})
    before = sorted(raw.rglob("*"))
    opened = []
    really_open = tarfile.open

    def counting_open(*args, fileobj, **kwargs):
        opened.append(Path(fileobj.name if hasattr(fileobj, "name") else "xz"))
        return really_open(*args, fileobj=fileobj, **kwargs)

    monkeypatch.setattr(tarfile, "open", counting_open)
    MiniImagenet(raw, prepared).prepare()
    assert len(opened) == len(before)
    assert sorted(raw.rglob("*")) == before
    assert not list(raw.parent.rglob("escaped.jpg"))


@pytest.mark.parametrize("suffix", [".tar.xz", ".tar.gz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.95, 0.999])
def test_a_cut_off_archive_is_never_taken_for_whole(raw, prepared, suffix, share):
    archive = raw / f"all{suffix}"
    toy_images.write_tar(archive, FILES)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InconsistentDataError, match=rf"{archive} is damaged .* download or copy"):
        MiniImagenet(raw, prepared).prepare()


@pytest.mark.parametrize("bytes_of_a_member", [0, 100, 512, 600])
def test_a_plain_archive_cut_off_anywhere_is_never_taken_for_whole(
    raw, prepared, bytes_of_a_member
):
    toy_images.write_tar(raw / "all.tar", FILES)
    with tarfile.open(raw / "all.tar") as opened:
        last = opened.getmembers()[-1].offset
    os.truncate(raw / "all.tar", last + bytes_of_a_member)
    with pytest.raises(InconsistentDataError, match=r"all.tar is damaged .* download or copy"):
        MiniImagenet(raw, prepared).prepare()


@pytest.mark.parametrize("name", ["all.zip", "all.tar", "all.tar.gz", "all.tar.xz"])
def test_what_is_no_archive_is_named(raw, prepared, name):
    (raw / name).write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(InconsistentDataError, match=rf"{name} is damaged .* download or copy"):
        MiniImagenet(raw, prepared).prepare()


@pytest.mark.parametrize("write", [toy_images.write_tar, toy_images.write_zip])
def test_a_corrupt_member_is_named_and_skipped_only_if_asked(raw, prepared, write):
    archive = raw / ("all.tar.xz" if write is toy_images.write_tar else "all.zip")
    bad = {"train/n01/bad.jpg": FILES["train/n01/n010.jpg"][:500]}
    write(archive, FILES | bad)
    with pytest.raises(CorruptImageError, match=rf"train/n01/bad.jpg in {archive} is not a"):
        MiniImagenet(raw, prepared).prepare()
    source = MiniImagenet(raw, prepared, skip_corrupt=True)
    assert source.counts("train").num_images == 6
    assert "1 corrupt files left out" in source.describe()


def test_a_damaged_zip_member_counts_as_a_corrupt_file(raw, prepared):
    toy_images.write_zip(raw / "all.zip", FILES)
    content = bytearray((raw / "all.zip").read_bytes())
    content[content.index(FILES["train/n01/n010.jpg"]) + 400] ^= 255
    (raw / "all.zip").write_bytes(content)
    with pytest.raises(CorruptImageError, match=r"n010.jpg in .*all.zip is damaged"):
        MiniImagenet(raw, prepared).prepare()
    assert MiniImagenet(raw, prepared, skip_corrupt=True).counts("train").num_images == 5


def test_a_member_of_absurd_size_is_not_read(raw, prepared, monkeypatch):
    monkeypatch.setattr(raw_files, "MAX_IMAGE_BYTES", 10)
    write_folders(raw)
    with pytest.raises(CorruptImageError, match="an image may have at most 10"):
        MiniImagenet(raw, prepared).prepare()


def test_a_class_in_two_splits_is_refused(raw, prepared):
    write_folders(raw)
    toy_images.write_folder(raw, {"test/n01/x.jpg": FILES["test/n04/n040.jpg"]})
    with pytest.raises(InconsistentDataError, match=r"'n01' is in both .* remove it from one"):
        MiniImagenet(raw, prepared).prepare()


def test_two_images_of_one_name_are_refused(raw, prepared):
    write_folders(raw)
    toy_images.write_zip(raw / "old.zip", {"train/n01/n010.jpg": FILES["train/n01/n011.jpg"]})
    with pytest.raises(InconsistentDataError, match=r"two different images .* n01/n010.jpg"):
        MiniImagenet(raw, prepared).prepare()


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("file,wnid\nn010.jpg,n01", "needs the columns filename and label.*'file,wnid'"),
        ("", "needs the columns filename and label"),
        ("filename,label\nn010.jpg,n02", "puts n010.jpg into validation/n02, but .* train/n01"),
    ],
)
def test_a_table_that_cannot_be_right_is_named(raw, prepared, table, complaint):
    write_flat(raw)
    (raw / "val.csv").write_text(table)
    with pytest.raises(InconsistentDataError, match=rf"val.csv {complaint}"):
        MiniImagenet(raw, prepared).prepare()


def test_a_changed_table_changes_the_fingerprint(raw):
    write_flat(raw)
    before = MiniImagenet(raw).config_name()
    with (raw / "val.csv").open("a") as table:
        table.write("\n")
    assert MiniImagenet(raw).config_name() != before


def test_a_data_dir_without_images_says_what_is_expected(raw, prepared):
    remedy = r"<split>/<wnid>/<file>.jpg .*image-net.org"
    with pytest.raises(MissingDataError, match=f"has no archive and none of .*{remedy}"):
        MiniImagenet(raw, prepared).prepare()
    toy_images.write_zip(raw / "other.zip", {"readme.txt": b"something else"})
    with pytest.raises(MissingDataError, match=f"no image in the expected layout.*{remedy}"):
        MiniImagenet(raw, prepared).prepare()
