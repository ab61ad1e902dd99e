"""After a run was killed, events later than its checkpoint are removed from TensorBoard's files."""

import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event

from tf_metalstm.training.events import drop_events_after


@pytest.fixture
def log_dir(tmp_path):
    for steps in ((2, 4), (6, 8)):
        writer = tf.summary.create_file_writer(str(tmp_path))
        with writer.as_default():
            for step in steps:
                tf.summary.scalar("loss", step / 10, step=step)
        writer.close()
    (tmp_path / "other.txt").write_text("not ours")
    return tmp_path


def steps(folder):
    found = []
    for path in folder.glob("events.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = Event.FromString(record.numpy())
            found += [event.step for _ in event.summary.value]
    return sorted(found)


@pytest.mark.parametrize(("step", "left"), [(8, [2, 4, 6, 8]), (6, [2, 4, 6]), (0, [])])
def test_later_events_are_dropped(log_dir, step, left):
    drop_events_after(log_dir, step)
    assert steps(log_dir) == left
    drop_events_after(log_dir, step)
    assert steps(log_dir) == left
    assert (log_dir / "other.txt").read_text() == "not ours"


def test_files_with_nothing_to_drop_are_not_touched(log_dir):
    before = {path: path.stat().st_mtime_ns for path in log_dir.iterdir()}
    drop_events_after(log_dir, 8)
    assert before == {path: path.stat().st_mtime_ns for path in log_dir.iterdir()}


@pytest.mark.parametrize("lost", [1, 20])
def test_a_torn_end_is_dropped(log_dir, lost):
    last = max(log_dir.glob("events.*"), key=lambda path: path.stat().st_mtime_ns)
    last.write_bytes(last.read_bytes()[:-lost])
    drop_events_after(log_dir, 8)
    assert steps(log_dir) == [2, 4, 6]


def test_a_run_without_event_files_has_nothing_to_drop(tmp_path):
    drop_events_after(tmp_path / "none", 0)
    assert not (tmp_path / "none").exists()
