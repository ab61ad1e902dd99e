"""Changed data is prepared again, unchanged data is not, and prepared data needs no raw files."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import toy_images

from tf_metalstm.data.sources import contents
from tf_metalstm.data.sources.base import MissingDataError
from tf_metalstm.data.sources.mini_imagenet import MiniImagenet
from tf_metalstm.data.sources.omniglot import Omniglot

SIDE = 12
IMAGE = "images/n01_0.bmp"
WNIDS = {"train": ("n01", "n02"), "val": ("n03",), "test": ("n04",)}


def bmp(value):
    """Returns an uncompressed image file. All such files have the same size."""
    return toy_images.encode(np.full((SIDE, SIDE, 3), value, np.uint8), "BMP")


def flat_files(value=40):
    """Returns {path: content} of three images a class and the lists; all images have one size."""
    files = {}
    for split, wnids in WNIDS.items():
        rows = [(f"{wnid}_{number}.bmp", wnid) for wnid in wnids for number in range(3)]
        files |= {f"images/{name}": bmp(value) for name, _ in rows}
        table = "\n".join(["filename,label", *(f"{name},{wnid}" for name, wnid in rows)])
        files[f"{split}.csv"] = table.encode()
    return files


@pytest.fixture
def raw(tmp_path):
    toy_images.write_folder(tmp_path / "raw", flat_files())
    return tmp_path / "raw"


@pytest.fixture
def prepared(tmp_path):
    return tmp_path / "prepared"


@pytest.fixture(autouse=True)
def _files_are_old_at_once(monkeypatch):
    monkeypatch.setattr(contents, "_TOO_FRESH", 0)


def source(raw, prepared, **options):
    return MiniImagenet(raw, prepared, image_size=SIDE, **options)


def mean_of(raw, prepared):
    return float(source(raw, prepared).channel_statistics().mean[0])


def replace(file, content):
    """Writes as many other bytes, and sets the modification time back."""
    before = file.stat()
    assert len(content) == before.st_size
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def labels_corrected(raw):
    table = raw / "train.csv"
    rows = table.read_text().replace("n01_0.bmp,n01", "n01_0.bmp,n02")
    replace(table, rows.replace("n02_0.bmp,n02", "n02_0.bmp,n01").encode())


def an_image_replaced(raw):
    replace(raw / IMAGE, bmp(200))


def all_images_replaced(raw):
    for path, content in flat_files(200).items():
        replace(raw / path, content)


def another_set_moved_there(raw):
    other = raw.with_name("other")
    toy_images.write_folder(other, flat_files(200))
    for path in flat_files():
        times = (raw / path).stat()
        os.utime(other / path, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(raw)
    other.rename(raw)


def a_link_set_to_another_file(raw):
    (raw.parent / "elsewhere.bmp").write_bytes(bmp(200))
    (raw / IMAGE).unlink()
    (raw / IMAGE).symlink_to(raw.parent / "elsewhere.bmp")


def two_images_exchanged(raw):
    replace(raw / IMAGE, bmp(200))
    one, other = raw / IMAGE, raw / "images/n02_0.bmp"
    one.rename(raw / "third")
    other.rename(one)
    (raw / "third").rename(other)


def an_image_renamed(raw):
    (raw / IMAGE).rename(raw / "images/n01_9.bmp")
    table = raw / "train.csv"
    table.write_text(table.read_text().replace("n01_0", "n01_9"))


def an_image_taken_away(raw):
    (raw / IMAGE).unlink()


def a_row_taken_away(raw):
    table = raw / "train.csv"
    table.write_text(table.read_text().replace("n01_0.bmp,n01\n", ""))


def an_archive_added(raw):
    toy_images.write_zip(raw / "more.zip", {"train/n05/0.bmp": bmp(90)})


CHANGES = [
    labels_corrected,
    an_image_replaced,
    all_images_replaced,
    another_set_moved_there,
    a_link_set_to_another_file,
    two_images_exchanged,
    an_image_renamed,
    an_image_taken_away,
    a_row_taken_away,
    an_archive_added,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_prepared_anew(raw, prepared, change):
    before = source(raw, prepared)
    before.prepare()
    name = before.config_name()
    change(raw)
    after = source(raw, prepared)
    assert after.config_name() != name
    fresh = source(raw, prepared.with_name("fresh"))
    assert after.describe() == fresh.describe()
    assert after.fingerprint_of("train") == fresh.fingerprint_of("train")


def test_corrected_labels_are_in_the_classes(raw, prepared):
    toy_images.write_folder(raw, {IMAGE: bmp(200)})
    assert source(raw, prepared).load("train").images[:, 0, 0, 0].tolist() == [200] + 5 * [40]
    labels_corrected(raw)
    assert source(raw, prepared).load("train").images[:, 0, 0, 0].tolist() == 3 * [40] + [
        200,
        40,
        40,
    ]


def test_another_set_of_the_same_names_and_sizes_is_another(raw, prepared, tmp_path):
    assert mean_of(raw, prepared) == pytest.approx(40, abs=1)
    toy_images.write_folder(tmp_path / "other", flat_files(200))
    assert mean_of(tmp_path / "other", prepared) == pytest.approx(200, abs=1)


@pytest.mark.parametrize("compressed", [".zip", ".tar"])
def test_an_archive_of_the_same_name_and_size_is_another(prepared, tmp_path, compressed):
    write = {".zip": toy_images.write_zip, ".tar": toy_images.write_tar}[compressed]
    raw = tmp_path / "raw"
    raw.mkdir()
    for value in (40, 200):
        write(raw / f"all{compressed}", {"train/n01/a.bmp": bmp(value)})
        assert mean_of(raw, prepared) == pytest.approx(value, abs=1)


def touched(raw):
    os.utime(raw / IMAGE)
    return raw


def moved(raw):
    return raw.rename(raw.with_name("moved folder"))


def copied(raw):
    return Path(shutil.copytree(raw, raw.with_name("copy")))


def linked(raw):
    raw.with_name("link").symlink_to(raw)
    return raw.with_name("link")


def with_a_trailing_slash(raw):
    return f"{raw}/"


def relative(raw):
    return os.path.relpath(raw)


def from_home(raw):
    os.environ["HOME"] = str(raw.parent)
    return f"~/{raw.name}"


def with_clutter(raw):
    toy_images.write_folder(raw / "images", {"Thumbs.db": b"1", "@eaDir/n01_0.bmp": b"2"})
    return raw


def with_a_text_beside(raw):
    toy_images.write_folder(raw, {"images/README.txt": b"read me", "notes.txt": b"or me"})
    return raw


SAME = [
    touched,
    moved,
    copied,
    linked,
    with_a_trailing_slash,
    relative,
    from_home,
    with_clutter,
    with_a_text_beside,
]


@pytest.mark.parametrize("change", SAME, ids=lambda change: change.__name__)
def test_what_is_the_same_is_not_prepared_again(raw, prepared, change, monkeypatch):
    monkeypatch.setenv("HOME", os.environ["HOME"])
    expected = source(raw, prepared).load("train")
    there = change(raw)
    monkeypatch.setattr(MiniImagenet, "stage", None)
    np.testing.assert_array_equal(source(there, prepared).load("train").images, expected.images)


def count_reading(monkeypatch):
    read = []
    really = contents.file_digest
    monkeypatch.setattr(contents, "file_digest", lambda file: read.append(file) or really(file))
    return read


def test_a_second_start_reads_no_file(raw, prepared, monkeypatch):
    read = count_reading(monkeypatch)
    name = source(raw, prepared).config_name()
    assert len(read) == len(set(read)) == len(flat_files())
    read.clear()
    assert source(raw, prepared).config_name() == name
    assert not read
    an_image_replaced(raw)
    assert source(raw, prepared).config_name() != name
    assert read == [raw / IMAGE]


def test_a_start_from_another_folder_reads_no_file(raw, prepared, monkeypatch, tmp_path):
    read = count_reading(monkeypatch)
    name = source(raw, prepared).config_name()
    monkeypatch.chdir(tmp_path)
    read.clear()
    for there in ("raw", "./raw/", linked(raw)):
        assert source(there, prepared).config_name() == name
    monkeypatch.chdir(raw)
    assert source(".", prepared).config_name() == name
    assert not read


def test_what_changed_a_moment_ago_is_read_again(raw, prepared, monkeypatch):
    """A file system's clock ticks slowly, so two changes may have the same time."""
    monkeypatch.setattr(contents, "_TOO_FRESH", 10**12)
    read = count_reading(monkeypatch)
    for _ in range(2):
        source(raw, prepared).config_name()
    assert len(read) == 2 * len(flat_files())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}', "{}"])
def test_damaged_notes_are_made_anew(raw, prepared, content):
    name = source(raw, prepared).config_name()
    source(raw, prepared).prepare()
    for kept in (*prepared.glob("known_files/*"), *prepared.glob("known_folders/*")):
        kept.write_text(content)
    again = source(raw, prepared)
    assert again.config_name() == name
    again.prepare()


def test_notes_that_cannot_be_written_are_not_needed(raw, prepared):
    prepared.mkdir()
    for name in ("known_files", "known_folders"):
        (prepared / name).write_text("in the way")
    assert source(raw, prepared).counts("train").num_classes == 2


def test_the_prepared_folder_says_what_it_holds_and_from_where(raw, prepared, tmp_path):
    first = source(raw, prepared)
    first.prepare()
    source(copied(raw), prepared).prepare()
    [what] = prepared.glob("mini_imagenet/*/what.txt")
    text = what.read_text()
    assert f"Raw files: {raw} (found on 20" in text
    assert f"Raw files: {tmp_path / 'copy'} (found on 20" in text
    assert f"train: 2 classes, 6 images, fingerprint {first.fingerprint_of('train')}" in text
    assert "12 x 12 x 3" in text


def deleted(raw):
    shutil.rmtree(raw)
    return raw


def renamed(raw):
    raw.rename(raw.with_name("new name"))
    return f"{raw}/"


def emptied(raw):
    shutil.rmtree(raw)
    raw.mkdir()
    (raw / ".DS_Store").write_bytes(b"clutter")
    return raw


def seen_through_a_link(raw):
    link = linked(raw)
    shutil.rmtree(raw)
    return link


def relative_and_deleted(raw):
    name = os.path.relpath(raw)
    shutil.rmtree(raw)
    return name


@pytest.mark.parametrize(
    "change",
    [deleted, renamed, emptied, seen_through_a_link, relative_and_deleted],
    ids=lambda change: change.__name__,
)
def test_raw_files_that_are_gone_are_not_needed(raw, prepared, change, capsys):
    expected = source(raw, prepared).load("train").images
    there = change(raw)
    capsys.readouterr()
    np.testing.assert_array_equal(source(there, prepared).load("train").images, expected)
    said = capsys.readouterr().out
    assert "is missing or empty. Using the data that were prepared from" in said
    assert str(raw) in said


def test_a_relative_folder_is_known_in_another_folder(raw, prepared, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    expected = source("raw", prepared).fingerprint_of("train")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert source("raw/", prepared).fingerprint_of("train") == expected


def test_of_two_relative_folders_of_one_name_none_is_taken(raw, prepared, monkeypatch, tmp_path):
    toy_images.write_folder(tmp_path / "else/raw", flat_files(200))
    for folder in (tmp_path, tmp_path / "else"):
        monkeypatch.chdir(folder)
        source("raw", prepared).prepare()
    (tmp_path / "third").mkdir()
    monkeypatch.chdir(tmp_path / "third")
    with pytest.raises(MissingDataError, match="data_dir raw is not a folder"):
        source("raw", prepared).prepare()


@pytest.mark.parametrize(
    "other",
    [
        lambda raw, prepared: MiniImagenet(raw, prepared, image_size=SIDE + 1),
        lambda raw, prepared: source(raw, prepared, skip_corrupt=True),
        lambda raw, prepared: Omniglot(raw, prepared, image_size=SIDE),
        lambda raw, prepared: source(raw.with_name("never"), prepared),
        lambda raw, prepared: source(raw, prepared.with_name("other")),
    ],
    ids=["size", "option", "source", "folder", "prepared_dir"],
)
def test_what_was_prepared_otherwise_is_not_taken(raw, prepared, other):
    source(raw, prepared).prepare()
    shutil.rmtree(raw)
    with pytest.raises(MissingDataError, match="is not a folder"):
        other(raw, prepared).prepare()


def test_prepared_data_that_were_taken_away_too_are_asked_for(raw, prepared):
    source(raw, prepared).prepare()
    shutil.rmtree(raw)
    shutil.rmtree(prepared / "mini_imagenet")
    with pytest.raises(MissingDataError, match="is not a folder"):
        source(raw, prepared).prepare()


def test_a_folder_with_other_files_is_read_and_nothing_old_is_taken(raw, prepared):
    source(raw, prepared).prepare()
    shutil.rmtree(raw)
    toy_images.write_folder(raw, {"train/n01/a.bmp": bmp(200)})
    assert source(raw, prepared).counts("train").num_images == 1
