"""metrics/training.csv: a row of numbers for each epoch, written while the training runs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd

from brainseg import files


def write(history: pd.DataFrame, path: Path) -> None:
    """Write the table of a whole training, or of its first epochs."""
    files.write_text(path, _format(history))


class LiveTable(AbstractContextManager):
    """The same table, growing by a row when an epoch ends; a watcher of ``trainer.run``.

    DVC removes the table of the run before when the stage starts. What a killed training leaves of its own is removed
    when it goes on, and written again with the epochs of its checkpoint.
    """

    def __init__(self, path: Path):
        self.path, self._rows, self._state = path, 0, (0, 0)

    def __exit__(self, *_: object) -> None:
        """The table stays, also that of a training that failed."""

    def update(self, history: Sequence[dict[str, Any]]) -> None:
        """All epochs so far. Rows that are there stay, so that a program can follow the file."""
        table = pd.DataFrame(list(history))
        if self._rows and _look(self.path) == self._state:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_format(table[self._rows :], header=False))
        else:  # the first rows, or somebody has put another file in its place: git, which tracks it, or DVC
            write(table, self.path)
        self._rows, self._state = len(table), _look(self.path)


def _look(path: Path) -> tuple[int, int]:
    """What tells a file from another one in its place."""
    return (path.stat().st_ino, path.stat().st_size) if path.is_file() else (0, 0)


def _format(history: pd.DataFrame, *, header: bool = True) -> str:
    return history.to_csv(index=False, header=header, lineterminator="\n", float_format="%.6g")
