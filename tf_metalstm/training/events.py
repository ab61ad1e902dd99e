"""Keeps TensorBoard's event files of a run consistent with its checkpoint."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event


def drop_events_after(folder: str | Path, step: int) -> None:
    """Removes the TensorBoard events that a run wrote after a step.

    A run that was killed may have logged updates after its last checkpoint. It makes those updates
    again, and TensorBoard would show them twice. An incomplete record at the end of a file is
    removed too.

    Args:
        folder: has the event files; files with nothing to remove are not touched.
        step: number of updates at the checkpoint from which the run continues.
    """
    for path in sorted(Path(folder).glob("events.out.tfevents.*")):
        records, torn = _read(path)
        kept = [record for record in records if Event.FromString(record).step <= step]
        if torn or len(kept) < len(records):
            _write(path, kept)


def _read(path: Path) -> tuple[list[bytes], bool]:
    """Returns the records of a file, and whether its last record is incomplete."""
    records: list[bytes] = []
    try:
        for record in tf.data.TFRecordDataset(str(path)):
            records.append(record.numpy())
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError):
        return records, True
    return records, False


def _write(path: Path, records: list[bytes]) -> None:
    # TensorBoard ignores this name, so it never reads a file that is not complete.
    partial = path.with_name(f".{path.name}")
    try:
        with tf.io.TFRecordWriter(str(partial)) as writer:
            for record in records:
                writer.write(record)
        partial.replace(path)
    except tf.errors.OpError as error:
        raise OSError(f"{path} cannot be rewritten: {error.message}") from error
