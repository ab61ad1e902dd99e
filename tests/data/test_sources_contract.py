"""Tests what every source must do. A new source must be listed here."""

import numpy as np
import pytest
import toy_images

from tf_metalstm.construction import build_tasks
from tf_metalstm.data.catalogue import SOURCES
from tf_metalstm.data.sources.base import SPLITS, Source
from tf_metalstm.options import OptionError, options_of
from tf_metalstm.settings import UnusedOptionError, make_settings

# All sources but the toy sources of the tests and the trials of Omniglot, which are other tasks.
SOURCE_NAMES = [
    source.part.name
    for source in SOURCES
    if source.kind == "images" and source.part.name not in ("toys", "omniglot_trials")
]
TOY_FILES = {
    "omniglot": toy_images.omniglot_files,
    "mini_imagenet": toy_images.mini_imagenet_files,
    "folder": toy_images.folder_files,
}


def built(name, folder, **options):
    """Builds the source from options, as a command does."""
    known = options_of(SOURCES[name].part.options)
    where = {"data_dir": folder / "raw", "prepared_dir": folder / "prepared"}
    said = {key: str(value) for key, value in where.items() if key in known}
    said |= {"tfds_name": "toy_tfds"} if "tfds_name" in known else {}
    return build_tasks(make_settings({"source": name, **said, **options})).source


@pytest.fixture(scope="module", params=SOURCE_NAMES)
def source(request, tmp_path_factory):
    if request.param == "glyphs":
        return request.getfixturevalue("glyphs")
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "tfds":
        toy_images.write_tfds(folder / "raw")
    else:
        toy_images.write_folder(folder / "raw", TOY_FILES[request.param]())
    return built(request.param, folder)


@pytest.fixture(scope="module")
def loaded(source):
    return {split: source.load(split) for split in SPLITS}


@pytest.mark.parametrize("split", SPLITS)
def test_images_are_grouped_by_sorted_classes(source, loaded, split):
    images, class_sizes, class_names = loaded[split]
    assert images.dtype == np.uint8
    assert images.shape == (class_sizes.sum(), *source.image_shape)
    assert class_sizes.dtype == np.int64
    assert class_sizes.min() > 0
    assert len(class_sizes) == len(class_names) == len(set(class_names))
    assert list(class_names) == sorted(class_names)


def test_no_class_is_in_two_splits(loaded):
    names = [name for split in SPLITS for name in loaded[split].class_names]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("split", SPLITS)
def test_counts_and_description_are_those_of_the_images(source, loaded, split):
    images, class_sizes, class_names = loaded[split]
    assert source.counts(split) == (len(class_names), len(images), class_sizes.min())
    expected = f"{source.name}/{split}: {len(class_names)} classes, {len(images)} images"
    assert source.describe(split).startswith(expected)
    assert expected in source.describe()


def test_channel_statistics_are_those_of_the_training_images(source, loaded):
    pixels = loaded["train"].images.astype(np.float64)
    mean, std = source.channel_statistics()
    assert mean.shape == std.shape == source.image_shape[-1:]
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 1, 2)), rtol=1e-9)


@pytest.mark.parametrize("split", SPLITS)
def test_a_fingerprint_is_that_of_the_images_as_they_are_loaded(source, loaded, split, monkeypatch):
    monkeypatch.setattr(source, "_rotations", False, raising=False)
    assert source.fingerprint_of(split) == Source.fingerprint_of(source, split)
    assert len({source.fingerprint_of(each) for each in SPLITS}) == 3


def test_loading_twice_gives_the_same(source, loaded):
    first, second = loaded["test"], source.load("test")
    np.testing.assert_array_equal(first.images, second.images)
    assert first.class_names == second.class_names


@pytest.mark.parametrize("method", ["load", "counts", "describe", "fingerprint_of"])
def test_an_unknown_split_lists_the_known_ones(source, method):
    with pytest.raises(
        ValueError, match=r"unknown split 'val': use one of train, validation, test"
    ):
        getattr(source, method)("val")


@pytest.mark.parametrize("split", SPLITS)
def test_names_of_classes_are_known_without_their_images(source, loaded, split):
    assert source.class_names(split) == loaded[split].class_names


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(OptionError, match=r"^source must be one of glyphs, omniglot, .*'imagenet'"):
        make_settings({"source": "imagenet"})


def test_options_of_another_source_are_refused(tmp_path):
    """A source that draws its own images refuses options about raw files."""
    for name, value in (("omniglot_rotations", True), ("data_dir", "raw"), ("skip_corrupt", True)):
        with pytest.raises(UnusedOptionError, match=f"^{name} does nothing with source=glyphs"):
            built("glyphs", tmp_path, **{name: value})


def test_options_reach_the_source(tmp_path):
    toy_images.write_folder(tmp_path / "raw", toy_images.omniglot_files())
    upright = built("omniglot", tmp_path, omniglot_rotations=False, image_size=20)
    assert upright.image_shape == (20, 20, 1)
    rotated = built("omniglot", tmp_path, image_size=20)
    assert rotated.counts("train").num_classes == 4 * upright.counts("train").num_classes
    by_alphabet = built("omniglot", tmp_path, omniglot_split="alphabets", image_size=20)
    assert by_alphabet.class_names("train") != rotated.class_names("train")
    assert built("mini_imagenet", tmp_path).image_shape == (84, 84, 3)
    assert built("mini_imagenet", tmp_path, image_size=33).image_shape == (33, 33, 3)


def test_making_a_source_touches_no_disk(tmp_path):
    for name in SOURCE_NAMES:
        built(name, tmp_path)
    assert not list(tmp_path.iterdir())
