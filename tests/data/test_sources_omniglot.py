"""Tests Omniglot: both layouts, both splits, rotations, and wrong files."""

import hashlib
import io

import numpy as np
import pytest
import toy_images
from PIL import Image

from tf_metalstm.data.sources.base import (
    SPLITS,
    ClassImages,
    CorruptImageError,
    InconsistentDataError,
    MissingDataError,
)
from tf_metalstm.data.sources.omniglot import (
    Omniglot,
    split_alphabets,
    split_characters,
    with_rotations,
)

FILES = toy_images.omniglot_files()
PARTS = ("images_background", "images_evaluation")


@pytest.fixture
def raw(tmp_path):
    """Writes the toy data as folders."""
    toy_images.write_folder(tmp_path / "raw", FILES)
    return tmp_path / "raw"


@pytest.fixture
def prepared(tmp_path):
    return tmp_path / "prepared"


def assert_same_images(first, second):
    for split in SPLITS:
        expected, found = first.load(split), second.load(split)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.class_sizes, expected.class_sizes)
        assert found.class_names == expected.class_names


@pytest.mark.parametrize("zipped", [PARTS, PARTS[:1]])
def test_zipped_and_unpacked_data_are_the_same(raw, prepared, tmp_path, zipped):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for part in PARTS:
        files = toy_images.part_of(FILES, part)
        if part in zipped:
            clutter = {f"__MACOSX/{part}/A/character01/._0001_00.png": b"clutter"}
            toy_images.write_zip(mixed / f"{part}.zip", files | clutter)
        else:
            toy_images.write_folder(mixed, files)
    assert_same_images(Omniglot(raw, prepared), Omniglot(mixed, prepared))


def test_an_archive_is_preferred_to_a_folder_that_may_be_half_unpacked(raw, prepared):
    toy_images.write_zip(raw / f"{PARTS[0]}.zip", toy_images.part_of(FILES, PARTS[0]))
    next((raw / PARTS[0]).rglob("*.png")).unlink()
    assert sum(Omniglot(raw, prepared).counts(split).num_images for split in SPLITS) == 4 * 20


def test_images_are_the_files_scaled_down(raw, prepared):
    source = Omniglot(raw, prepared, split="alphabets", rotations=False)
    images, _, class_names = source.load("test")
    assert class_names[1] == "X/character02"
    file = FILES["images_evaluation/X/character02/0001_01.png"]
    gray = Image.open(io.BytesIO(file)).convert("L")
    expected = np.asarray(gray.resize((28, 28), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(images[3, :, :, 0], expected)
    assert np.median(expected) > 200, "ink is dark, paper is white"


def test_rotations_are_quarter_turns_beside_the_upright_class(raw, prepared):
    upright = Omniglot(raw, prepared, rotations=False).load("train")
    turned = Omniglot(raw, prepared).load("train")
    assert turned.class_names[:4] == tuple(
        f"{upright.class_names[0]}@{degrees}" for degrees in ("000", "090", "180", "270")
    )
    np.testing.assert_array_equal(turned.class_sizes, upright.class_sizes.repeat(4))
    for turns in range(4):
        for image in range(2):
            np.testing.assert_array_equal(
                turned.images[2 * turns + image], np.rot90(upright.images[image], turns)
            )
    np.testing.assert_array_equal(turned.images[8:10], upright.images[2:4])


def test_turned_classes_keep_their_sizes():
    images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1)
    turned = with_rotations(ClassImages(images, np.array([1, 2]), ("one", "two")))
    assert turned.class_sizes.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    np.testing.assert_array_equal(turned.images[6:8], np.rot90(images[1:3], axes=(1, 2)))


def test_the_split_of_the_field_has_its_sizes_and_a_fixed_order():
    names = [f"alphabet{number % 50}/character{number // 50:02d}" for number in range(1623)]
    splits = split_characters(names)
    members = {split: sorted(n for n in names if splits[n] == split) for split in SPLITS}
    assert [len(members[split]) for split in SPLITS] == [1100, 100, 423]
    assert splits == split_characters(reversed(names))
    # If this changes, later results cannot be compared with earlier ones.
    digest = hashlib.sha256(" ".join(members["test"]).encode()).hexdigest()
    assert digest[:16] == "20d8cb518d78ae81"


def test_the_authors_split_holds_out_a_sixth_of_the_background_alphabets():
    groups = {f"B{a}/c{c}": PARTS[0] for a in range(30) for c in range(3)}
    groups |= {f"E{a}/c{c}": PARTS[1] for a in range(20) for c in range(3)}
    splits = split_alphabets(groups)
    assert {split for name, split in splits.items() if name.startswith("E")} == {"test"}
    alphabets = {s: {n.split("/")[0] for n in splits if splits[n] == s} for s in SPLITS}
    assert [len(alphabets[split]) for split in SPLITS] == [25, 5, 20]
    assert not alphabets["train"] & alphabets["validation"]


def test_the_authors_split_needs_two_background_alphabets(tmp_path, prepared):
    raw = tmp_path / "one_alphabet"
    files = toy_images.part_of(FILES, "images_background/A") | toy_images.part_of(FILES, PARTS[1])
    toy_images.write_folder(raw, files)
    with pytest.raises(InconsistentDataError, match="1 alphabet found in images_background"):
        Omniglot(raw, prepared, split="alphabets").prepare()


def test_a_class_in_both_parts_is_refused(raw, prepared):
    toy_images.write_folder(raw, {f"{PARTS[1]}/A/character01/1.png": next(iter(FILES.values()))})
    with pytest.raises(InconsistentDataError, match=r"'A/character01' is in both .* remove it"):
        Omniglot(raw, prepared).prepare()


@pytest.mark.parametrize("content", [b"no image", FILES[next(iter(FILES))][:-30], b""])
def test_a_corrupt_image_is_named_and_skipped_only_if_asked(raw, prepared, content):
    bad = raw / "images_evaluation/X/character01/0001_00.png"
    bad.write_bytes(content)
    with pytest.raises(
        CorruptImageError, match=rf"{bad} is not .* leave such files out with --skip_corrupt"
    ):
        Omniglot(raw, prepared).prepare()
    source = Omniglot(raw, prepared, split="alphabets", rotations=False, skip_corrupt=True)
    assert source.counts("test") == (4, 7, 1)
    assert "1 corrupt files left out" in source.describe()


def test_a_corrupt_member_is_named_with_its_archive(raw, prepared):
    files = toy_images.part_of(FILES, PARTS[0]) | {f"{PARTS[0]}/A/character01/bad.png": b"bad"}
    toy_images.write_zip(raw / f"{PARTS[0]}.zip", files)
    with pytest.raises(
        CorruptImageError, match=r"A/character01/bad.png in .*background.zip is not"
    ):
        Omniglot(raw, prepared).prepare()


def test_a_missing_data_dir_says_what_is_expected_and_where_it_is_had(tmp_path, prepared):
    remedy = r"images_background and images_evaluation.*brendenlake/omniglot on GitHub"
    with pytest.raises(MissingDataError, match=f"omniglot needs a data_dir.*{remedy}"):
        Omniglot(None, prepared).prepare()
    with pytest.raises(MissingDataError, match=f"nowhere is not a folder.*{remedy}"):
        Omniglot(tmp_path / "nowhere", prepared).prepare()
    toy_images.write_folder(tmp_path / "half", toy_images.part_of(FILES, PARTS[0]))
    with pytest.raises(MissingDataError, match=f"neither images_evaluation.zip.*{remedy}"):
        Omniglot(tmp_path / "half", prepared).prepare()
    for part in PARTS:
        (tmp_path / "empty" / part).mkdir(parents=True)
    with pytest.raises(MissingDataError, match=f"no image in the expected layout.*{remedy}"):
        Omniglot(tmp_path / "empty", prepared).prepare()


def test_an_unknown_class_split_lists_the_known_ones(raw):
    with pytest.raises(ValueError, match="'random': use one of characters, alphabets"):
        Omniglot(raw, split="random")
