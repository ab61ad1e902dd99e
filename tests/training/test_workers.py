"""Several processes act as several machines over the loopback address, with the real command."""

import json
import signal
import socket
import time

import numpy as np
import pytest
import tensorflow as tf
from command import Command

from tf_metalstm.options import OptionError
from tf_metalstm.settings import make_settings
from tf_metalstm.train import main
from tf_metalstm.training.devices import build_strategy
from tf_metalstm.training.history import read_history

ENDLESS = 10_000  # more updates than a run makes before a worker is lost


def start(run_dir, max_steps, workers=(), index=0):
    arguments = ["--source=sine", "--learner=mlp", "--hidden_layers=4"]
    arguments += ["--rule=meta_sgd", "--num_steps=1"]
    arguments += ["--episodes_per_step=2", "--validation_episodes=4", "--checkpoint_every=2"]
    arguments += ["--validate_every=4", f"--max_steps={max_steps}", f"--run_dir={run_dir}"]
    environment = {}
    if workers:
        arguments.append("--strategy=multi_worker")
        task = {"type": "worker", "index": index}
        environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    return Command("tf_metalstm.train", *arguments, environment=environment)


def start_two(run_dir, max_steps, run_dir_of_other=None):
    workers = []
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
            workers.append(f"127.0.0.1:{probe.getsockname()[1]}")
    run_dirs = (run_dir, run_dir_of_other or run_dir)
    return [start(run_dirs[index], max_steps, workers, index) for index in (0, 1)]


def last_step(run_dir):
    steps = [int(p.stem[5:]) for p in (run_dir / "checkpoints").glob("step-*.index")]
    return max(steps, default=0)


def weights(run_dir, step):
    path = run_dir / "checkpoints" / f"step-{step}"
    reader = tf.train.load_checkpoint(str(path))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith("weights/") and name.endswith("VARIABLE_VALUE")
    }


def assert_same_run(one, two, step):
    """Compares the weights of an update, and the histories."""
    first, second = weights(one, step), weights(two, step)
    assert first.keys() == second.keys()
    assert any("c_0" in name for name in first)
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], rtol=1e-3, atol=1e-5, err_msg=name)
    for row, other in zip(read_history(one), read_history(two), strict=True):
        for name, value in row.items():
            np.testing.assert_allclose(float(value or 0), float(other[name] or 0), rtol=1e-4)


@pytest.mark.slow
def test_two_workers_do_what_one_process_does(tmp_path):
    for process in (*start_two(tmp_path / "two", 4), start(tmp_path / "one", 4)):
        process.finish()
    assert_same_run(tmp_path / "one", tmp_path / "two", 4)


@pytest.mark.slow
def test_two_workers_one_of_them_lost_on_the_way_do_what_one_process_does(tmp_path):
    chief, other = start_two(tmp_path / "two", ENDLESS)
    while last_step(tmp_path / "two") < 4:
        assert chief.poll() is None, chief.output()
        time.sleep(0.01)
    other.kill()
    other.finish(code=-signal.SIGKILL)
    lost = chief.finish(code=1)
    assert "ConnectionError: A worker of this run was lost. The last checkpoint is " in lost
    long = last_step(tmp_path / "two") + 4
    for process in (*start_two(tmp_path / "two", long), start(tmp_path / "one", long)):
        process.finish()
    assert_same_run(tmp_path / "one", tmp_path / "two", long)

    for process in start_two(tmp_path / "two", long, tmp_path / "not_shared"):
        assert "OSError: The workers of this run read different" in process.finish(code=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"episodes_per_step": 3},
            r"^episodes_per_step is 3, which cannot be .* choose a multiple of 2",
        ),
        (
            {"episodes_per_step": 2, "jit_compile": True},
            r"^jit_compile works on one device only",
        ),
        (
            {"strategy": "none", "jit_compile": True},
            r"^jit_compile needs deterministic=false",
        ),
    ],
)
def test_what_cannot_be_done_is_said_at_once(tmp_path, changes, message):
    settings = make_settings({"strategy": "mirrored", **changes}, str(tmp_path / "run"))
    with pytest.raises(OptionError, match=message):
        main(settings)
    assert not (tmp_path / "run").exists()


def test_several_workers_need_to_know_each_other(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"needs the environment variable TF_CONFIG, for example"):
        build_strategy("multi_worker")
