"""The real command is interrupted, and then continues as if it had not been."""

import random
import re
import signal
import time

import numpy as np
import pytest
import run_toy
import tensorflow as tf
from command import Command

from tf_metalstm.training.history import read_history
from tf_metalstm.training.lock import lock

EVERY = 2
ENDLESS = 10_000  # more updates than a run makes before the interruption


def start(run_dir, max_steps, limit_bytes=None):
    arguments = ["--source=sine", "--num_shot=1", "--num_query=2", "--num_steps=1"]
    arguments += ["--learner=mlp", "--hidden_layers=4", "--mlp_batch_normalization"]
    arguments += ["--validation_episodes=2", f"--checkpoint_every={EVERY}", "--validate_every=4"]
    arguments += [f"--max_steps={max_steps}", f"--run_dir={run_dir}"]
    return Command("tf_metalstm.train", *arguments, limit_bytes=limit_bytes)


def last_step(run_dir):
    steps = [int(p.stem[5:]) for p in (run_dir / "checkpoints").glob("step-*.index")]
    return max(steps, default=0)


def wait_for(process, run_dir, step):
    """Waits until a run has written the checkpoint of this update."""
    while last_step(run_dir) < step:
        assert process.poll() is None, process.output()
        time.sleep(0.005)


def state(run_dir, folder):
    newest = max((run_dir / folder).glob("step-*.index"), key=lambda p: int(p.stem[5:]))
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "/" in name and "minutes" not in name
    }


def assert_same_run(one, other, torn=None):
    """Compares two runs, except the losses of the epoch `torn` that SIGTERM interrupted."""
    for folder in ("checkpoints", "best"):
        first, second = state(one, folder), state(other, folder)
        assert first.keys() == second.keys()
        assert any("c_0" in name for name in first)
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name], err_msg=f"{folder}: {name}")
    histories, curves = [], []
    for run_dir in (one, other):
        histories.append([row for row in read_history(run_dir) if int(row["step"]) != torn])
        curves.append([point for point in run_toy.scalars(run_dir) if point[0] != torn])
    assert histories[0] == histories[1]
    assert curves[0] == curves[1]
    assert curves[0]
    assert len(run_toy.scalars(one)) == len(run_toy.scalars(other))


def break_off(run_dir, kills, moments):
    """Kills a run several times: before its first checkpoint, then between updates."""
    for kill in range(kills):
        process = start(run_dir, ENDLESS)
        if kill:
            wait_for(process, run_dir, last_step(run_dir) + EVERY * moments.randint(1, 3))
        time.sleep(moments.uniform(0.0, 0.1 if kill else 2.0))
        assert process.poll() is None, "it has ended by itself, and the kill says nothing"
        process.kill()
        process.finish(code=-signal.SIGKILL)


def assert_goes_on_as_if_left_alone(broken, straight, torn=None):
    """Continues a run for some updates, and compares it with one that was never interrupted."""
    long = EVERY * (last_step(broken) // EVERY + 4)  # SIGTERM may come between two checkpoints
    for process in (start(broken, long), start(straight, long)):
        process.finish()
    assert_same_run(straight, broken, torn)


def stopped_by_sigterm(run_dir):
    """Sends SIGTERM to a run. Returns the update whose row in the history covers fewer updates."""
    before, process = last_step(run_dir), start(run_dir, ENDLESS)
    wait_for(process, run_dir, before + EVERY)
    process.send_signal(signal.SIGTERM)
    said = re.search(
        r"SIGTERM: stopped after (\d+) updates", process.finish(code=128 + signal.SIGTERM)
    )
    stopped = int(said[1])
    return stopped + stopped % EVERY if stopped % EVERY else None


def test_a_broken_run_equals_one_that_was_left_alone(tmp_path):
    broken = tmp_path / "broken"
    process = start(broken, ENDLESS)
    wait_for(process, broken, EVERY)
    with pytest.raises(BlockingIOError, match="Another process is training in"), lock(broken):
        pass
    process.kill()
    process.finish(code=-signal.SIGKILL)
    torn = stopped_by_sigterm(broken)
    assert_goes_on_as_if_left_alone(broken, tmp_path / "straight", torn)


@pytest.mark.slow
def test_a_full_disk_and_another_process_leave_a_run_as_it_was(tmp_path):
    break_off(tmp_path / "broken", 2, random.Random(0))
    before = last_step(tmp_path / "broken")
    assert before > 0
    full = start(tmp_path / "broken", ENDLESS, limit_bytes=2_000).finish(code=1)
    assert "cannot be written" in full
    assert "run the same command again: it continues" in full
    with lock(tmp_path / "broken"):
        refused = start(tmp_path / "broken", ENDLESS).finish(code=1)
    assert "Another process is training in --run_dir=" in refused
    assert last_step(tmp_path / "broken") == before
    assert_goes_on_as_if_left_alone(tmp_path / "broken", tmp_path / "straight")


@pytest.mark.slow
def test_a_run_killed_twenty_times_equals_one_that_was_left_alone(tmp_path):
    break_off(tmp_path / "broken", 20, random.Random(1))
    assert_goes_on_as_if_left_alone(tmp_path / "broken", tmp_path / "straight")
