"""A rule is written to a folder and read again. Other folders cause an error."""

import hashlib
import io
import json

import keras
import numpy as np
import pytest
import toy

from tf_metalstm.parameters import blocks_of
from tf_metalstm.rule_folder import MANIFEST, WEIGHTS, read_rule, write_rule
from tf_metalstm.rules.meta_sgd import MetaSGD


@pytest.fixture
def folder(tmp_path):
    rule = toy.lively_rule(dtype="float32")
    facts = {"trained": {"source": "quadratics"}}
    write_rule(rule, {"hidden_units": 3, "gate_feedback": "value"}, tmp_path / "rule", 20, facts)
    return tmp_path / "rule"


def edit(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_it_is_read_as_it_was_written(folder):
    read = read_rule(folder)
    assert read.trained_steps == 20
    assert read.rule.hidden_units == 3
    assert read.manifest["trained"] == {"source": "quadratics"}
    assert toy.files_in(folder) == {MANIFEST, WEIGHTS}
    for one, other in zip(toy.lively_rule().weights, read.rule.weights, strict=True):
        np.testing.assert_array_equal(np.float32(one.numpy()), other.numpy())


def test_options_of_several_numbers_and_weights_for_each_parameter(tmp_path):
    rule = MetaSGD(0.2, 0.3)
    rule.build(blocks_of([("w", (2, 3))]))
    write_rule(rule, {"meta_sgd_rates": (0.2, 0.3)}, tmp_path)
    read = read_rule(tmp_path)
    assert (read.rule.low, read.rule.high, read.trained_steps) == (0.2, 0.3, None)
    np.testing.assert_array_equal(rule.rate.numpy(), read.rule.rate.numpy())


def test_the_rule_computes_in_float32_whatever_the_policy_of_models_is(folder):
    keras.config.set_dtype_policy("mixed_float16")
    assert read_rule(folder).rule.compute_dtype == "float32"


def test_a_second_export_replaces_the_first_and_nothing_else(folder, tmp_path):
    write_rule(toy.lively_rule(dtype="float32"), {"hidden_units": 3}, folder, 50)
    assert read_rule(folder).trained_steps == 50
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"are not deleted: move notes.txt away"):
        write_rule(toy.lively_rule(dtype="float32"), {"hidden_units": 3}, folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="move a file away"):
        write_rule(toy.lively_rule(dtype="float32"), {"hidden_units": 3}, tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "tf_metalstm.saved_model"}, "has the format 'tf_metalstm.saved_model' and not"),
        ({"format_version": 2}, "format version 2, but this program reads 1: use the release"),
        ({"rule": "nobody"}, r"a known rule \(rule must be one of .* got 'nobody'"),
        ({"options": {"no_such": 1}}, "a known rule .*no_such"),
        ({"options": {"hidden_units": -1}}, "a known rule .*must be a whole number"),
        ({"options": {"hidden_units": "x"}}, "does not describe a known rule"),
        ({"options": {"hidden_units": 4}}, r"has weights of the shapes .* do not belong together"),
        ({"weights": {}}, "do not belong together"),
        ({"weights": None}, "does not describe a known rule"),
        ({"built_for": 3}, "does not describe a known rule"),
        ({"trained_steps": "many"}, "does not describe a known rule"),
        ({"sha256": "0"}, "is not the file that was exported with its manifest.json"),
    ],
)
def test_a_manifest_that_fits_nothing_is_said(changes, message, folder):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=message):
        read_rule(folder)


def test_damaged_and_missing_files_are_named(folder, tmp_path):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"weights.npz is not the file .* truncated or another"):
        read_rule(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"weights.npz cannot be read \(No such file"):
        read_rule(folder)
    (folder / MANIFEST).write_text('{"format": "tf_met')
    with pytest.raises(ValueError, match=r"manifest.json is damaged .* export the run again"):
        read_rule(folder)
    with pytest.raises(ValueError, match=r"cannot be read \(No such file.* takes a folder that"):
        read_rule(tmp_path / "nowhere")


def test_nothing_is_unpickled(folder):
    held = io.BytesIO()
    np.savez(held, w=np.array([{"an": "object"}], dtype=object))
    (folder / WEIGHTS).write_bytes(held.getvalue())
    edit(folder, sha256=hashlib.sha256(held.getvalue()).hexdigest())
    with pytest.raises(ValueError, match=r"is no file of NumPy arrays \(Object arrays cannot be"):
        read_rule(folder)
