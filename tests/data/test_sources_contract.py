"""What every source promises, whatever its images: a new one has to be listed here."""

import numpy as np
import pytest
import toy_images

from tf_metalstm.data.catalogue import SOURCE_NAMES, make_source
from tf_metalstm.data.sources.base import SPLITS, Source


def toy_omniglot(folder):
    toy_images.write_folder(folder / "raw", toy_images.omniglot_files())
    return make_source("omniglot", data_dir=folder / "raw", prepared_dir=folder / "prepared")


def toy_mini_imagenet(folder):
    toy_images.write_folder(folder / "raw", toy_images.mini_imagenet_files())
    return make_source("mini_imagenet", data_dir=folder / "raw", prepared_dir=folder / "prepared")


TOY_SOURCES = {"omniglot": toy_omniglot, "mini_imagenet": toy_mini_imagenet}


@pytest.fixture(scope="module", params=SOURCE_NAMES)
def source(request, tmp_path_factory):
    if request.param == "glyphs":
        return request.getfixturevalue("glyphs")
    return TOY_SOURCES[request.param](tmp_path_factory.mktemp(request.param))


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


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'imagenet': use one of glyphs, omniglot, mini_imagenet"):
        make_source("imagenet")


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no option rotate: use .*rotations, skip_corrupt, split"):
        make_source("omniglot", rotate=True)
    with pytest.raises(ValueError, match="glyphs has no option rotations: use none"):
        make_source("glyphs", rotations=True)


def test_a_data_dir_does_not_disturb_a_source_that_needs_none(tmp_path):
    assert make_source("glyphs", data_dir=tmp_path / "missing").name == "glyphs"


def test_making_a_source_touches_no_disk(tmp_path):
    for name in SOURCE_NAMES:
        make_source(name, data_dir=tmp_path / "missing", prepared_dir=tmp_path / "prepared")
    assert not list(tmp_path.iterdir())
