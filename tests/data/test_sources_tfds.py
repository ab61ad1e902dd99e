"""Tests data sets of TensorFlow Datasets, from local files."""

import io

import numpy as np
import pytest
import toy_images
from PIL import Image

from tf_metalstm.data.sources.base import MissingDataError
from tf_metalstm.data.sources.tfds_images import TfdsImages
from tf_metalstm.options import OptionError

FILES = toy_images.folder_files(images=4)
ALL = {"split_fractions": (1.0, 0.0, 0.0)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    toy_images.write_tfds(folder)
    return folder


def test_all_splits_are_put_together_and_pixels_are_those_of_the_files(raw):
    found = TfdsImages("toy_tfds", raw, image_size=12, **ALL).stage()
    assert found.images["train"].keys() == set("abcdefg")
    assert {len(images) for images in found.images["train"].values()} == {4}
    expected = {name: [] for name in "abcdefg"}
    for path, content in FILES.items():
        squeezed = Image.open(io.BytesIO(content)).resize((12, 12), Image.Resampling.LANCZOS)
        expected[path[0]].append(np.asarray(squeezed).mean())
    for name, images in found.images["train"].items():
        means = [np.asarray(Image.open(io.BytesIO(each))).mean() for each in images.values()]
        np.testing.assert_allclose(sorted(means), sorted(expected[name]), atol=1.0)


def test_classes_are_split_by_the_seed(raw):
    first, second = (
        TfdsImages("toy_tfds:1.2.3", raw, image_size=8, split_seed=seed).stage() for seed in (0, 1)
    )
    sizes = {split: len(classes) for split, classes in first.images.items()}
    assert sizes == {"train": 4, "validation": 2, "test": 1}
    assert first.fingerprints != second.fingerprints


class GrayTfds(toy_images.ToyTfds):
    """The same data set in gray."""

    name = "gray_tfds"
    channels = 1


def test_gray_stays_gray(tmp_path):
    toy_images.write_tfds(tmp_path, GrayTfds)
    source = TfdsImages("gray_tfds", tmp_path, image_size=8, **ALL)
    assert source.image_shape == (8, 8, 1)
    [first, *_] = source.stage().images["train"]["a"].values()
    assert Image.open(io.BytesIO(first)).mode == "L"


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(OptionError, match="tfds_name is needed by source=tfds"):
        _ = TfdsImages(None).image_shape
    with pytest.raises(OptionError, match="'no_such_set', which TensorFlow Datasets does not know"):
        _ = TfdsImages("no_such_set", tmp_path).image_shape
    with pytest.raises(MissingDataError, match=r"mnist is not in .*tfds.load\('mnist', data_dir="):
        _ = TfdsImages("mnist", tmp_path).image_shape


def test_the_prepared_data_change_with_the_files(raw, tmp_path):
    names = {
        TfdsImages("toy_tfds", raw, tmp_path, image_size=size, split_seed=seed).config_name()
        for size, seed in ((8, 0), (9, 0), (8, 1), (8, 0))
    }
    assert len(names) == 3
    assert all(name.startswith("toy_tfds-") for name in names)
