"""RUN_DIR/history.csv: losses and scores of a run, one row for every checkpoint."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import keras

from tf_metalstm.files import write_atomically


class WriteHistory(keras.callbacks.Callback):
    """Adds a row after every epoch; first removes the rows after the step where the run continues.

    Args:
        run_dir: folder of the run.
        score_name: name of the score of an episode, as "accuracy".
        start: number of updates made before this call of fit.
        steps_per_epoch: number of updates in an epoch.
    """

    def __init__(self, run_dir: str | Path, score_name: str, start: int, steps_per_epoch: int):
        super().__init__()
        self._path = Path(run_dir, "history.csv")
        self._steps_per_epoch = steps_per_epoch
        values = ("loss", score_name)
        self._columns = ("step", *values, *(f"val_{name}" for name in (*values, "interval")))
        self._rows = [row for row in read_history(run_dir) if int(row["step"]) <= start]
        self._write()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Adds the row of an epoch."""
        step = (epoch + 1) * self._steps_per_epoch
        values = {name: f"{logs[name]:.6g}" for name in self._columns[1:] if name in logs}
        self._rows.append({"step": str(step), **values})
        self._write()

    def _write(self) -> None:
        table = io.StringIO()
        writer = csv.DictWriter(table, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self._path, table.getvalue())


def read_history(run_dir: str | Path) -> list[dict[str, str]]:
    """Returns the rows of RUN_DIR/history.csv; an empty list if there is no such file."""
    path = Path(run_dir, "history.csv")
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
