"""The baselines are trained, continued and fine-tuned through the commands, on a toy source."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import toy

from tf_metalstm import evaluate, export, train
from tf_metalstm.construction import build_method, build_tasks, resolve
from tf_metalstm.flags import read_settings
from tf_metalstm.tables import results
from tf_metalstm.tables.catalogue import Cell, Run
from tf_metalstm.training.checkpoints import RunCheckpoints, fingerprint_of_weights

pytestmark = pytest.mark.usefixtures("undrawn")

NUM_CLASSES = 8

MLP = {"learner": "mlp", "hidden_layers": (4,)}


def settings(run_dir, max_steps, **said):
    if said.get("method") != "pixel_nearest_neighbor" and "learner" not in said:
        said = {"statistics_momentum": 0.9, **toy.MLP, **said}
    if said.get("method") == "nearest_neighbor":
        said = {"joint_batch_size": 8, **said}
    return toy.settings(run_dir, max_steps=max_steps, **said)


def fresh(run):
    tasks = build_tasks(run)
    return build_method(resolve(run, tasks), tasks)


def weights(run):
    method = fresh(run)
    assert RunCheckpoints(run.run_dir, method).restore()
    return method, [w.numpy() for w in method.weights]


@pytest.fixture(scope="module")
def joint(tmp_path_factory):
    """A run of joint training that other runs start from. Tests must not change it."""
    run = settings(tmp_path_factory.mktemp("runs") / "joint", 2, method="nearest_neighbor")
    train.main(run)
    return run


@pytest.mark.parametrize(
    "method",
    [
        {"method": "nearest_neighbor"},
        pytest.param(
            {"method": "matching_networks", "dropout": 0.5, **toy.CONV4}, marks=pytest.mark.slow
        ),
        {"method": "prototypical_networks", "training_num_way": 4},
    ],
    ids=lambda method: method["method"],
)
def test_a_run_that_goes_on_is_the_run_that_was_never_stopped(method, tmp_path):
    straight = settings(tmp_path / "straight", 4, **method)
    train.main(straight)
    for max_steps in (2, 4):
        resumed = settings(tmp_path / "resumed", max_steps, **method)
        train.main(resumed)
    for one, other in zip(weights(straight)[1], weights(resumed)[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_evaluate_writes_is_what_a_table_and_an_export_read(tmp_path):
    run = settings(tmp_path / "run", 2, rule="sgd", num_steps=1, **MLP)
    train.main(run)
    evaluate.main(read_settings(run.run_dir, "--num_episodes=4"))
    cell = Cell("a row", 3, 2, "", Run("run", ()))
    found = results.find_report(cell, pathlib.Path(run.run_dir), 4)
    assert len(found["scores"]) == 4
    assert found["mean"] == pytest.approx(np.mean(found["scores"]), abs=1e-6)
    [exported] = export.matching_reports(run.run_dir, weights(run)[0], "best", found["step"], {})
    assert exported["mean"] == found["mean"]
    other = dataclasses.replace(cell, num_shot=1)
    assert results.find_report(other, pathlib.Path(run.run_dir), 4) is None


@pytest.mark.slow
def test_fine_tuning_starts_from_the_network_that_was_trained(joint, tmp_path):
    assert read_settings(joint.run_dir).get("num_training_classes") == NUM_CLASSES
    start = {"pretrained_run_dir": joint.run_dir}
    tuned = settings(tmp_path / "tuned", 0, rule="sgd", num_steps=2, **start)
    pathlib.Path(tuned.run_dir, "checkpoints").mkdir(parents=True)  # as after a full disk
    train.main(tuned)
    trained = weights(joint)[0]
    best = RunCheckpoints(joint.run_dir, trained)
    assert best.restore("best")
    network = trained.network
    [kernel] = [v.numpy() for v in network.trainable_variables if v.path == "hidden_1/kernel"]
    method, _ = weights(tuned)
    [block] = [b for b in method.learner.parameter_blocks if b.name == "hidden_1/kernel"]
    of_c_0 = method.c_0.numpy()[block.start : block.start + block.size]
    np.testing.assert_array_equal(of_c_0, kernel.ravel())
    [start] = json.loads(pathlib.Path(tuned.run_dir, "starts.json").read_text())
    expected = {
        "run": "joint",
        "step": int(best.step),
        "weights": fingerprint_of_weights(joint.run_dir),
    }
    assert expected["weights"]
    assert start["pretrained"] == expected
    evaluate.main(read_settings(tuned.run_dir, "--num_episodes=2"))
    [path] = pathlib.Path(tuned.run_dir, "evaluation").iterdir()
    assert json.loads(path.read_text())["changed"] == {}


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            {"method": "nearest_neighbor", "num_training_classes": 3},
            "num_training_classes is 3, but toys/train has 8 classes",
        ),
        ({"method": "pixel_nearest_neighbor"}, "nothing to train .* max_steps=0"),
        ({"rule": "sgd", "learn_c_0": False}, "nothing to train .* max_steps=0"),
        ({"pretrained_run_dir": "nowhere"}, "pretrained_run_dir=nowhere has no run.flags"),
        ({"kernel_scale": -1.0}, "kernel_scale must be a number above 0, got -1"),
        ({"kernel_scale": float("nan")}, "kernel_scale must be a number above 0, got nan"),
        ({"method": "nearest_neighbor", "kernel_scale": 2.0}, "it belongs to start=c_0"),
    ],
)
def test_what_cannot_be_trained_is_said(run, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        train.main(settings(tmp_path / "run", 2, **run))


def test_a_linear_layer_that_is_not_learned_stays_through_a_run(tmp_path):
    methods = []
    for steps in (0, 2):
        run = settings(tmp_path / f"{steps}", steps, rule="sgd", learn_linear=False, **MLP)
        train.main(run)
        methods.append(weights(run)[0])
    begun, trained = methods
    moved = np.abs(begun.c_0.numpy() - trained.c_0.numpy())
    for block in begun.learner.parameter_blocks:
        part = moved[block.start : block.start + block.size]
        assert (part.max() == 0.0) == block.name.startswith("linear"), block.name


def test_a_joint_training_starts_from_another_one(tmp_path):
    joint = {"method": "nearest_neighbor", "dropout": 0.5, **toy.CONV4}
    first = settings(tmp_path / "first", 2, **joint)
    train.main(first)
    second = settings(tmp_path / "second", 0, **joint, pretrained_run_dir=first.run_dir)
    train.main(second)
    # The random states of dropout are not weights of the network.
    one, other = (weights(run)[0].network.weights for run in (first, second))
    assert len(one) == len(other) > 10
    for mine, its in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, its)


@pytest.mark.slow
def test_matching_networks_start_from_others(tmp_path):
    matching = {"method": "matching_networks", "full_context": True, **MLP}
    first = settings(tmp_path / "first", 2, **matching)
    train.main(first)
    second = settings(tmp_path / "second", 0, **matching, pretrained_run_dir=first.run_dir)
    train.main(second)
    one, other = weights(first)[1], weights(second)[1]
    assert len(one) == len(other) > 2 + 8  # the network, and three LSTMs
    for mine, its in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_prototypical_networks_start_from_a_joint_training(joint, tmp_path):
    start = {"method": "prototypical_networks", "pretrained_run_dir": joint.run_dir}
    run = settings(tmp_path / "prototypical", 0, **start)
    train.main(run)
    expected = {weight.path: weight.numpy() for weight in weights(joint)[0].network.weights}
    started = weights(run)[0].embedding
    assert len(started.weights) == len(expected) - 2 == 6  # all but the linear layer
    for weight in started.weights:
        np.testing.assert_array_equal(weight.numpy(), expected[weight.path])


def test_rules_start_from_prototypical_networks(tmp_path):
    first = settings(tmp_path / "first", 0, method="prototypical_networks")
    train.main(first)
    trained = {weight.path: weight.numpy() for weight in weights(first)[0].embedding.weights}
    start = {"pretrained_run_dir": first.run_dir, "rule": "sgd", "num_steps": 1, "seed": 1}
    head = settings(tmp_path / "head", 0, method="head_adaptation", **start)
    train.main(head)
    for weight in weights(head)[0].embedding.weights:
        np.testing.assert_array_equal(weight, trained[weight.path])
    everything = settings(tmp_path / "everything", 0, start="prototypes", **start)
    train.main(everything)
    method = weights(everything)[0]
    [block] = [b for b in method.learner.parameter_blocks if b.name == "hidden_1/kernel"]
    of_c_0 = method.c_0.numpy()[block.start : block.start + block.size]
    np.testing.assert_array_equal(of_c_0, trained["hidden_1/kernel"].ravel())


def test_matching_networks_start_from_a_joint_training(joint, tmp_path):
    matching = {"method": "matching_networks", "full_context": True}
    run = settings(tmp_path / "matching", 0, **matching, pretrained_run_dir=joint.run_dir)
    train.main(run)
    trained, started = weights(joint)[0].network, weights(run)[0].embedding
    expected = {weight.path: weight.numpy() for weight in trained.weights}
    assert len(started.weights) == len(expected) - 2 == 6  # all but the linear layer
    for weight in started.weights:
        np.testing.assert_array_equal(weight.numpy(), expected[weight.path])
    [start] = json.loads(pathlib.Path(run.run_dir, "starts.json").read_text())
    assert start["pretrained"]["run"] == "joint"


def test_training_that_spoils_what_it_began_at_keeps_it(joint, tmp_path, capsys):
    spoilt = settings(tmp_path / "run", 2, rule="sgd", pretrained_run_dir=joint.run_dir)
    spoilt = spoilt.changed(learning_rate=1e3, clip_norm=0.0)
    capsys.readouterr()
    train.main(spoilt)
    assert "update 0: validation accuracy" in capsys.readouterr().out
    last, _ = weights(spoilt)
    best = fresh(spoilt)
    checkpoints = RunCheckpoints(spoilt.run_dir, best)
    assert checkpoints.restore("best")
    assert (int(checkpoints.step), int(checkpoints.best_step)) == (0, 0)
    assert np.abs(last.c_0.numpy() - best.c_0.numpy()).max() > 1.0


@pytest.mark.parametrize("rule", ["meta_lstm", pytest.param("meta_sgd", marks=pytest.mark.slow)])
def test_a_meta_learner_starts_from_another_one(rule, tmp_path):
    first = settings(tmp_path / "first", 2, rule=rule, num_steps=2, **MLP)
    train.main(first)
    changed = {"rule": rule, "num_steps": 1, "query_normalization": "support", **MLP}
    second = settings(tmp_path / "second", 0, **changed, pretrained_run_dir=first.run_dir)
    train.main(second)
    (one, begun), (other, started) = weights(first), weights(second)
    assert RunCheckpoints(first.run_dir, one).restore("best")
    assert len(begun) == len(started) == (8 if rule == "meta_lstm" else 2)
    for mine, its in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), its.numpy())
    unlike = zip(fresh(second).weights, started, strict=True)
    assert any(np.any(a.numpy() != b) for a, b in unlike)
