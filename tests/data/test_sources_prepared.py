"""Data is prepared once, prepared again if the raw files change, and never left half prepared."""

import random
import tempfile

import numpy as np
import pytest
import toy_images

from tf_metalstm.data.sources import prepared as prepared_module
from tf_metalstm.data.sources.builder import ImageClassesBuilder
from tf_metalstm.data.sources.omniglot import Omniglot
from tf_metalstm.data.sources.prepared import CACHE_VARIABLE, default_prepared_dir


@pytest.fixture
def raw(tmp_path):
    toy_images.write_folder(tmp_path / "raw", toy_images.omniglot_files())
    return tmp_path / "raw"


@pytest.fixture
def prepared(tmp_path):
    return tmp_path / "prepared"


def forbid_staging(monkeypatch):
    def stage(self):
        raise AssertionError("the raw files were read again")

    monkeypatch.setattr(Omniglot, "stage", stage)


def test_a_second_preparation_reads_nothing(raw, prepared, monkeypatch):
    expected = Omniglot(raw, prepared).load("train")
    forbid_staging(monkeypatch)
    again = Omniglot(raw, prepared)
    again.prepare()
    np.testing.assert_array_equal(again.load("train").images, expected.images)


def test_rotations_need_no_preparation_of_their_own(raw, prepared, monkeypatch):
    Omniglot(raw, prepared, rotations=True).prepare()
    forbid_staging(monkeypatch)
    assert Omniglot(raw, prepared, rotations=False).counts("train").num_classes > 0


@pytest.mark.parametrize(
    "options", [{"split": "alphabets"}, {"skip_corrupt": True}, {"image_size": 14}]
)
def test_other_options_are_prepared_apart(raw, prepared, options):
    plain, other = Omniglot(raw, prepared), Omniglot(raw, prepared, **options)
    assert plain.config_name() != other.config_name()
    plain.prepare()
    other.prepare()
    assert other.load("train").images.shape[1:] == other.image_shape


def test_added_files_are_prepared_and_not_overlooked(raw, prepared):
    before = Omniglot(raw, prepared, split="alphabets", rotations=False).counts("test")
    drawing = (raw / "images_evaluation/X/character01/0001_00.png").read_bytes()
    toy_images.write_folder(raw, {"images_evaluation/Z/character01/0002_00.png": drawing})
    after = Omniglot(raw, prepared, split="alphabets", rotations=False).counts("test")
    assert after.num_classes == before.num_classes + 1


def test_a_replaced_file_of_another_size_changes_the_fingerprint(raw):
    before = Omniglot(raw).config_name()
    next((raw / "images_background").rglob("*.png")).write_bytes(b"another")
    assert Omniglot(raw).config_name() != before


def test_clutter_of_the_operating_system_changes_nothing(raw):
    before = Omniglot(raw).config_name()
    (raw / "images_background" / ".DS_Store").write_bytes(b"clutter")
    assert Omniglot(raw).config_name() == before


def test_nothing_is_written_beside_the_raw_files(raw, prepared):
    before = sorted(raw.rglob("*"))
    Omniglot(raw, prepared).load("train")
    assert sorted(raw.rglob("*")) == before


def test_nothing_is_left_in_the_folder_of_temporary_files(raw, prepared, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Omniglot(raw, prepared).prepare()
    assert not list((tmp_path / "temporary").iterdir())


def test_an_interrupted_preparation_is_begun_again(raw, prepared, monkeypatch):
    whole = ImageClassesBuilder._generate_examples

    def interrupted(self, classes):
        yield next(whole(self, classes))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ImageClassesBuilder, "_generate_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Omniglot(raw, prepared).prepare()
    assert not list(prepared.rglob("*.tfrecord*"))
    assert sum(Omniglot(raw, prepared).counts("train")[:1]) > 0


def test_what_a_killed_preparation_leaves_is_not_taken_for_whole(raw, prepared):
    source = Omniglot(raw, prepared)
    left = prepared / "omniglot" / source.config_name() / "incomplete.ABCDEF_1.0.0"
    left.mkdir(parents=True)
    (left / "omniglot-train.tfrecord-00000-of-00001").write_bytes(b"half")
    assert source.load("train").images.any()


def test_of_two_preparations_at_once_both_succeed(raw, prepared):
    class Overtaken(Omniglot):
        def stage(self):
            Omniglot(raw, prepared).prepare()
            return super().stage()

    np.testing.assert_array_equal(
        Overtaken(raw, prepared).load("test").images, Omniglot(raw, prepared).load("test").images
    )


def test_a_prepared_dir_that_cannot_be_made_is_named(raw, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file/prepared .* choose another prepared_dir or set \$TF"):
        Omniglot(raw, tmp_path / "file" / "prepared").prepare()


def test_preparation_neither_draws_from_nor_follows_the_seed(raw, prepared):
    random.seed(0)
    expected = random.random()
    random.seed(0)
    Omniglot(raw, prepared).prepare()
    assert random.random() == expected


def test_preparation_prints_and_warns_nothing(raw, prepared, capfd, caplog):
    Omniglot(raw, prepared).load("train")
    assert capfd.readouterr().out == ""
    assert not [record for record in caplog.records if record.levelname != "INFO"]


def test_images_that_fill_several_batches_are_all_loaded(raw, prepared, monkeypatch):
    expected = Omniglot(raw, prepared).load("train").images
    monkeypatch.setattr(prepared_module, "_LOAD_BATCH", 3)
    np.testing.assert_array_equal(Omniglot(raw, prepared).load("train").images, expected)


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert default_prepared_dir() == tmp_path / "mine"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_prepared_dir() == tmp_path / "xdg" / "tf_metalstm"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_prepared_dir() == tmp_path / "home" / ".cache" / "tf_metalstm"
