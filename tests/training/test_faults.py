"""Tests faults around a run: signals, damaged files, a full disk, a second process."""

import os
import pathlib
import shutil
import signal
import threading

import numpy as np
import pytest
import run_toy
import tensorflow as tf
from absl import logging

from tf_metalstm.training.checkpoints import NotFiniteError, RunCheckpoints
from tf_metalstm.training.history import read_history
from tf_metalstm.training.interruption import InterruptedRunError, Interruption
from tf_metalstm.training.lock import lock


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 8 updates with checkpoints at updates 4 and 8. Tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    run_toy.run(folder, 8, checkpoint_every=4)
    return folder


def final_values(run_dir):
    """Returns the weights and Adam's moments of the last checkpoint of a run."""
    method = run_toy.compiled_method(seed=5)
    RunCheckpoints(run_dir, method, method.optimizer).restore()
    return run_toy.values(method)


def interrupted_run(run_dir, max_steps, at, number=signal.SIGTERM):
    """Sends this process a signal during the update after `at`."""

    def send(index, episode):
        def kill(i):
            if i == at:
                os.kill(os.getpid(), number)
            return i

        with tf.control_dependencies([tf.py_function(kill, [index], tf.int64)]):
            return tf.nest.map_structure(tf.identity, episode)

    def training(step):
        numbered = run_toy.stream("train", step).enumerate(start=step)
        return numbered.map(send, num_parallel_calls=1)

    return run_toy.run(run_dir, max_steps, training=training, checkpoint_every=4)


@pytest.fixture
def ctrl_c(request):
    """Sets the handler of SIGINT for a foreground or a background program, then restores it."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_followed_by_a_checkpoint_and_the_run_goes_on_as_if_nothing_was(
    finished, tmp_path, number
):
    with pytest.raises(InterruptedRunError, match=f"{number.name}: stopped after") as stopped:
        interrupted_run(tmp_path / "stopped", 8, at=5, number=number)
    saved = RunCheckpoints(tmp_path / "stopped", run_toy.compiled_method())
    assert saved.restore()
    # Episodes are prepared ahead, so number 5 is drawn before the end of update 6.
    assert 1 <= int(saved.step) <= 6
    assert f"stopped after {int(saved.step)} updates" in str(stopped.value)
    stopped, _ = run_toy.run(tmp_path / "stopped", 8, seed=99, checkpoint_every=4)
    for one, other in zip(final_values(finished), run_toy.values(stopped), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["step"] for row in read_history(tmp_path / "stopped")] == ["4", "8"]


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler], indirect=True)
def test_a_second_signal_is_not_held_back():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("ctrl_c", [signal.SIG_IGN], indirect=True)
def test_a_signal_that_is_ignored_stays_so():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal is None


def test_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_thread_may_train():
    entered = []

    def enter():
        with Interruption() as interruption:
            entered.append(interruption.signal)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [None]


def damaged_copy(finished, tmp_path, file, how):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoints" / file
    contents = path.read_bytes()
    middle = len(contents) // 2
    path.write_bytes(
        {
            "truncated": contents[:middle],
            "empty": b"",
            "flipped": contents[:middle] + bytes([contents[middle] ^ 255]) + contents[middle + 1 :],
        }[how]
    )
    return path


@pytest.mark.parametrize("file", ["step-8.data-00000-of-00001", "step-8.index"])
@pytest.mark.parametrize("how", ["truncated", "empty", "flipped"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    finished, tmp_path, monkeypatch, file, how
):
    damaged_copy(finished, tmp_path, file, how)
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    method = run_toy.compiled_method(seed=5)
    checkpoints = RunCheckpoints(tmp_path, method, method.optimizer)
    assert checkpoints.restore()
    assert int(checkpoints.step) == 4
    (warning,) = said
    assert "step-8 cannot be read and is skipped: " in warning


def test_a_run_goes_on_from_before_the_damage_as_if_nothing_was(finished, tmp_path):
    damaged_copy(finished, tmp_path, "step-8.data-00000-of-00001", "truncated")
    again, _ = run_toy.run(tmp_path, 8, seed=99, checkpoint_every=4)
    for one, other in zip(final_values(finished), run_toy.values(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert read_history(tmp_path) == read_history(finished)


def test_a_run_with_nothing_but_damaged_checkpoints_does_not_start_again(finished, tmp_path):
    damaged_copy(finished, tmp_path, "step-8.index", "truncated")
    damaged_copy(tmp_path, tmp_path / "copy", "step-4.index", "truncated")
    with pytest.raises(OSError, match=r"No checkpoint in .*checkpoints can be read, all 2 are dam"):
        run_toy.run(tmp_path / "copy", 12, checkpoint_every=4)


def test_a_process_that_was_killed_while_it_wrote_leaves_no_checkpoint(finished, tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "unfinished-step-8_temp").mkdir(parents=True)
    for part in ("data-00000-of-00001", "index"):
        contents = (finished / "checkpoints" / f"step-8.{part}").read_bytes()
        (folder / f"unfinished-step-8.{part}").write_bytes(contents[: len(contents) // 2])
    method = run_toy.compiled_method()
    checkpoints = RunCheckpoints(tmp_path, method, method.optimizer)
    assert not checkpoints.restore()
    checkpoints.save(4, minutes=1.0)
    assert checkpoints.restore()
    assert {path.stem for path in folder.iterdir()} == {"step-4"}


@pytest.mark.parametrize("earlier", [True, False])
def test_an_index_is_named_after_its_data(finished, tmp_path, monkeypatch, earlier):
    class Killed(BaseException):
        pass

    def replace(path, target, of_path=pathlib.Path.replace):
        if path.suffix == ".index":
            raise Killed
        return of_path(path, target)

    if earlier:
        shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    method = run_toy.compiled_method()
    checkpoints = RunCheckpoints(tmp_path, method, method.optimizer)
    monkeypatch.setattr(pathlib.Path, "replace", replace)
    with pytest.raises(Killed):
        checkpoints.save(12, minutes=1.0)
    assert (tmp_path / "checkpoints" / "step-12.data-00000-of-00001").exists()
    assert checkpoints.restore() is earlier
    if earlier:
        assert int(checkpoints.step) == 8


def test_what_cannot_be_written_is_said_and_leaves_the_last_checkpoint(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    method = run_toy.compiled_method()
    checkpoints = RunCheckpoints(tmp_path, method, method.optimizer)
    # A folder has the name of the new file. This stops even root.
    (tmp_path / "checkpoints" / "step-12.index" / "x").mkdir(parents=True)
    with pytest.raises(
        OSError,
        match=r"of update 12 cannot be written to .*Is a directory.* checkpoint is .*step-8\.",
    ):
        checkpoints.save(12, minutes=1.0)
    assert checkpoints.restore()
    assert int(checkpoints.step) == 8


def test_a_second_process_is_refused(tmp_path):
    with lock(tmp_path), pytest.raises(BlockingIOError, match="Another process is training in"):
        lock(tmp_path)
    with lock(tmp_path):
        pass


def test_what_a_run_wrote_after_the_step_it_went_back_to_goes_with_the_next_checkpoint(
    finished, tmp_path
):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    method = run_toy.compiled_method()
    checkpoints = RunCheckpoints(tmp_path, method, method.optimizer)
    checkpoints.save_best(0.9, 6)
    checkpoints.save(6, minutes=1.0)
    for folder in ("best", "checkpoints"):
        names = {path.stem for path in (tmp_path / folder).glob("*.index")}
        assert "step-6" in names
        assert "step-8" not in names


def test_weights_that_are_no_numbers_are_not_the_best(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = sorted((tmp_path / "best").iterdir())
    method = run_toy.compiled_method()
    checkpoints = RunCheckpoints(tmp_path, method, method.optimizer)
    method.c_0.assign(method.c_0 * float("nan"))
    with pytest.raises(NotFiniteError, match="c_0 is not a finite number at update 12"):
        checkpoints.save_best(1.0, 12)
    assert sorted((tmp_path / "best").iterdir()) == before


def test_event_files_that_cannot_be_written_are_said(tmp_path, monkeypatch):
    def full(self):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    writer = type(tf.summary.create_file_writer(str(tmp_path / "other")))
    monkeypatch.setattr(writer, "flush", full)
    with pytest.raises(OSError, match=r"TensorBoard's files of update 4 .*: No space left on dev"):
        run_toy.run(tmp_path / "run", 8, checkpoint_every=4)


def test_a_signal_during_the_last_update_leaves_a_finished_run(tmp_path):
    run_toy.run(tmp_path, 4, on_validation=lambda step: os.kill(os.getpid(), signal.SIGTERM))
    checkpoints = RunCheckpoints(tmp_path, run_toy.compiled_method())
    assert checkpoints.restore()
    assert int(checkpoints.step) == 4
