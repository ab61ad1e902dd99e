"""A run can start from an export with the same weights as from the run itself, or gets an error."""

import json

import numpy as np
import pytest
import tensorflow as tf
import toy
from fresh_run import fresh_run

from tf_metalstm import export, train
from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.exported import exported_settings, load_exported
from tf_metalstm.flags import read_settings
from tf_metalstm.serving import saved_model
from tf_metalstm.start import check_pretrained, start_method

TRUNK = {"method": "nearest_neighbor", "classifier": "cosine", "last_relu": False}
META_LSTM = {"num_steps": 1, "hidden_units": 3}


def variables_alone(served):
    """Does what `build_signatures` does, without the functions, which take seconds to trace."""
    module = tf.Module()
    module.meta_parameters = [variable.value for variable in served.method.served_variables]
    return module, {}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns {name: (folder of a run, folder of its export)}."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_model, "build_signatures", variables_alone)
        patch.setattr(saved_model, "check_reload", lambda *_: None)
        for name, said in (("trunk", TRUNK), ("meta_lstm", META_LSTM)):
            run_dir = tmp_path_factory.mktemp(name)
            fresh_run(small(run_dir, **said), step=7)
            export.main(read_settings(run_dir))
            found[name] = run_dir, run_dir / "saved_model"
    return found


def small(run_dir=None, **said):
    settings = toy.settings(run_dir, **{"seed": 1, **toy.CONV4, **said})
    return resolve(settings, build_tasks(settings))


def fresh(settings):
    return build_method(settings, build_tasks(settings))


def begun(settings, pretrained):
    """Returns the weights of a method that starts there, and the record of its start."""
    check_pretrained(settings, pretrained)
    method = fresh(settings)
    start = start_method(method, pretrained)
    return {w.path: w.numpy() for w in method.weights}, start


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trunk", {"method": "prototypical_networks", "last_relu": False}),
        ("trunk", {"method": "matching_networks", "last_relu": False}),
        ("trunk", {"last_relu": False, **META_LSTM}),
        ("meta_lstm", META_LSTM),
    ],
)
def test_it_begins_where_the_run_is(made, name, said):
    run_dir, folder = made[name]
    settings = small(**said, seed=2)
    of_run, run = begun(settings, read_settings(run_dir))
    of_export, exported = begun(settings, exported_settings(folder))
    untouched = {w.path: w.numpy() for w in fresh(settings).weights}
    assert of_export.keys() == of_run.keys()
    for path, value in of_run.items():
        np.testing.assert_array_equal(of_export[path], value, err_msg=path)
    assert any(not np.array_equal(untouched[path], value) for path, value in of_run.items())
    assert (exported["run"], exported["step"]) == ("saved_model", run["step"])
    assert len(exported["weights"]) == 16


def test_joint_training_goes_on_with_a_fresh_last_layer(made):
    """The export has no last layer, because it only has what is used after training."""
    folder = made["trunk"][1]
    names = [variable.name for variable in tf.saved_model.load(folder).meta_parameters]
    assert "conv_1/kernel:0" in names
    assert not any("cosine" in name for name in names)
    settings = small(**TRUNK)
    found, _ = begun(settings, exported_settings(folder))
    assert found["cosine/kernel"].std() > 0.1


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            {"method": "prototypical_networks"},
            "last_relu is True in this run, but pretrained_run_d",
        ),
        ({"method": "prototypical_networks", "filters": 8}, "filters is 8 in this run"),
        ({"method": "nearest_neighbor", "last_relu": False}, "classifier is linear in this run"),
    ],
)
def test_the_network_has_to_be_the_same(made, said, message):
    with pytest.raises(ValueError, match=message):
        check_pretrained(small(**said), exported_settings(made["trunk"][1]))


def test_train_takes_an_export_for_a_run(made, tmp_path):
    """Prototypes on a trunk are such a method."""
    said = {"method": "prototypical_networks", "distance": "cosine", "last_relu": False}
    said |= {"max_steps": 0, "validation_episodes": 2, "pretrained_run_dir": str(made["trunk"][1])}
    train.main(small(tmp_path, **said))
    [start] = json.loads((tmp_path / "starts.json").read_text())
    assert (start["pretrained"]["run"], start["pretrained"]["step"]) == ("saved_model", 7)


def test_an_export_from_before_an_option_has_its_default(made, tmp_path):
    manifest = json.loads((made["meta_lstm"][1] / "manifest.json").read_text())
    del manifest["trained"]["normalization"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    pretrained = exported_settings(tmp_path)
    check_pretrained(small(**META_LSTM, normalization="standard"), pretrained)
    with pytest.raises(ValueError, match=r"is unit in this run, but .* trained with standard"):
        check_pretrained(small(**META_LSTM, normalization="unit"), pretrained)


def test_a_manifest_of_another_network_is_no_start(made, tmp_path):
    folder = tmp_path / "saved_model"
    manifest = json.loads((made["trunk"][1] / "manifest.json").read_text())
    manifest["method_settings"]["filters"] = 8
    tf.io.gfile.makedirs(str(folder / "variables"))
    for path in made["trunk"][1].rglob("*.*"):
        (folder / path.relative_to(made["trunk"][1])).write_bytes(path.read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"has shape \(3, 3, 1, 4\) for conv_1/kernel, which is"):
        load_exported(folder)
    del manifest["trained"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"not a model that export wrote: its manifest.json lacks"):
        exported_settings(folder)
