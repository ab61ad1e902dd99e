"""The fingerprint of the data changes with every pixel and name, and with nothing else."""

import hashlib

import numpy as np
import pytest
import toy
import toy_images

from tf_metalstm.data.sources.base import (
    SPLITS,
    ClassImages,
    MissingDataError,
    Source,
    fingerprint_of_classes,
    pixel_digest,
)
from tf_metalstm.data.sources.mini_imagenet import MiniImagenet
from tf_metalstm.data.sources.omniglot import Omniglot
from tf_metalstm.data.tasks import ImageTasks
from tf_metalstm.episode import EpisodeSpec

FILES = toy_images.omniglot_files()
PATH = "images_background/B/character02/0001_01.png"


def tasks(folder, files=FILES, **options):
    toy_images.write_folder(folder / "raw", files)
    source = Omniglot(folder / "raw", folder / "prepared", **options)
    return ImageTasks(source, EpisodeSpec(2, 1, 1))


def other_pixel(files):
    gray = np.full((35, 35), 255, np.uint8)
    gray[3:9, 3:9] = 0
    return files | {PATH: toy_images.encode(gray, "PNG")}


def other_class_name(files):
    return {path.replace("/B/", "/D/"): content for path, content in files.items()}


def one_image_less(files):
    return {path: content for path, content in files.items() if path != PATH}


def two_images_exchanged(files):
    other = PATH.replace("_01", "_00")
    return files | {PATH: files[other], other: files[PATH]}


CHANGES = [other_pixel, other_class_name, one_image_less, two_images_exchanged]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_the_data_is_seen(tmp_path, change):
    before = tasks(tmp_path / "one").data_fingerprint()
    assert tasks(tmp_path / "other", change(FILES)).data_fingerprint() != before


def other_file_names(files):
    return {path.replace("0001_", "0007_"): content for path, content in files.items()}


def compressed_otherwise(files):
    """Writes the same pixels as a TIFF file whose name ends with .png."""
    return files | {PATH: toy_images.recode(files[PATH], "TIFF")}


SAME = [dict, other_file_names, compressed_otherwise]


@pytest.mark.parametrize("change", SAME, ids=lambda change: change.__name__)
def test_place_and_layout_of_the_files_are_not_seen(tmp_path, change):
    before = tasks(tmp_path / "one").data_fingerprint()
    assert tasks(tmp_path / "some where/else", change(FILES)).data_fingerprint() == before


@pytest.mark.parametrize(
    "option", [{"rotations": False}, {"image_size": 14}, {"split": "alphabets"}]
)
def test_options_that_change_the_classes_are_seen(tmp_path, option):
    assert tasks(tmp_path, **option).data_fingerprint() != tasks(tmp_path).data_fingerprint()


def test_a_change_of_one_split_leaves_the_others(tmp_path):
    options = {"split": "alphabets"}
    one = tasks(tmp_path / "one", **options).source
    path = PATH.replace("background/B", "evaluation/X")
    other = tasks(tmp_path / "other", FILES | {path: FILES[PATH]}, **options).source
    changed = [
        split for split in SPLITS if one.fingerprint_of(split) != other.fingerprint_of(split)
    ]
    assert changed == ["test"]


def test_a_copy_without_a_split_has_a_fingerprint(tmp_path):
    files = toy_images.mini_imagenet_files()
    found = []
    for name, part in (("all", ""), ("train", "train")):
        toy_images.write_folder(tmp_path / name, toy_images.part_of(files, part))
        source = MiniImagenet(tmp_path / name, tmp_path / "prepared")
        found.append(ImageTasks(source, EpisodeSpec(2, 1, 1)).data_fingerprint())
    with pytest.raises(MissingDataError):
        source.fingerprint_of("test")
    assert found[0] != found[1]


def test_resized_images_count_as_they_are_loaded(tmp_path):
    toy_images.write_folder(tmp_path / "raw", toy_images.mini_imagenet_files())
    source = MiniImagenet(tmp_path / "raw", tmp_path / "prepared", image_size=40)
    assert source.fingerprint_of("test") == Source.fingerprint_of(source, "test")


def test_it_costs_no_reading_of_images(tmp_path, monkeypatch):
    prepared = tasks(tmp_path)
    expected = prepared.data_fingerprint()

    def load(self, split):
        raise AssertionError("images were read")

    monkeypatch.setattr(Omniglot, "load", load)
    assert tasks(tmp_path).data_fingerprint() == expected


def test_by_hand():
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    one, two = (hashlib.sha256(b"(2, 2, 1)" + bytes(range(i, i + 4))).digest() for i in (0, 4))
    assert [pixel_digest(image) for image in images] == [one, two]
    lines = [f"'a' {hashlib.sha256(one).hexdigest()}\n", f"'b' {hashlib.sha256(two).hexdigest()}\n"]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
    assert fingerprint_of_classes([("a", [one]), ("b", [two])]) == expected

    class TwoClasses(toy.ToySource):
        load = staticmethod(lambda split: ClassImages(images, np.array([1, 1]), ("a", "b")))

    assert Source.fingerprint_of(TwoClasses(), "train") == expected
