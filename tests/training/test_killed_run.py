"""The real command, killed for real: what comes is what would have come."""

import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]


def start(run_dir, log):
    arguments = ["--source=glyphs", "--num_shot=1", "--num_steps=2", "--filters=8"]
    schedule = ["--max_steps=30", "--checkpoint_every=5", "--validate_every=10"]
    arguments += [*schedule, "--validation_episodes=5", f"--run_dir={run_dir}"]
    return subprocess.Popen(
        [sys.executable, "-m", "tf_metalstm.train", *arguments],
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
    )


def last_state(run_dir, folder):
    path = tf.train.latest_checkpoint(run_dir / folder)
    reader = tf.train.load_checkpoint(path)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "/" in name and "minutes" not in name and "save_counter" not in name
    }


@pytest.mark.slow
def test_a_run_killed_twice_equals_one_that_was_left_alone(tmp_path):
    with (tmp_path / "log").open("w") as log:
        assert start(tmp_path / "straight", log).wait(timeout=600) == 0
        for step in (5, 15):
            process = start(tmp_path / "killed", log)
            written = tmp_path / "killed" / "checkpoints" / f"step-{step}.index"
            while not written.exists():
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert start(tmp_path / "killed", log).wait(timeout=600) == 0
    for folder in ("checkpoints", "best"):
        straight, killed = (last_state(tmp_path / name, folder) for name in ("straight", "killed"))
        assert straight.keys() == killed.keys()
        assert any("c_0" in name for name in straight)
        for name, value in straight.items():
            np.testing.assert_array_equal(value, killed[name], err_msg=name)
    histories = [(tmp_path / name / "history.csv").read_text() for name in ("straight", "killed")]
    assert histories[0] == histories[1]
