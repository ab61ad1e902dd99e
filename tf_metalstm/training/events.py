"""TensorBoard's event files of a run, held to what its checkpoint knows."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event


def drop_events_after(folder: str | Path, step: int) -> None:
    """Drops what a run wrote to TensorBoard after the step that it goes on from.

    A run that is killed may have logged more than its last checkpoint knows; it makes those
    updates again, and TensorBoard would show them twice. So is the torn end of a file dropped.

    Args:
        folder: with the event files; those with nothing to drop are not touched.
        step: updates made at the checkpoint.
    """
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
        records, torn = _read(path)
        kept = [record for record in records if Event.FromString(record).step <= step]
        if torn or len(kept) < len(records):
            _write(path, kept)


def _read(path: Path) -> tuple[list[bytes], bool]:
    """Returns the records of a file, and whether its end is torn."""
    records: list[bytes] = []
    try:
        for record in tf.data.TFRecordDataset(str(path)):
            records.append(record.numpy())
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError):
        return records, True
    return records, False


def _write(path: Path, records: list[bytes]) -> None:
    # The name keeps TensorBoard from reading the file before it is whole.
    partial = path.with_name(f".{path.name}")
    try:
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for record in records:
                writer.write(record)
        partial.replace(path)
    except tf.errors.OpError as error:
        raise OSError(f"{path} cannot be written anew: {error.message}") from error
