"""metrics/training.csv: a row of numbers for each epoch, written while the training runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from brainseg import files


def write(history: pd.DataFrame, path: Path) -> None:
    """Write the table of a whole training, or of its first epochs."""
    files.write_text(path, _format(history))


class LiveTable:
    """The same table, growing by a row when an epoch ends.

    DVC removes the table of the run before when the stage starts. What a killed training leaves of its own is removed
    when it goes on, and written again with the epochs of its checkpoint.
    """

    def __init__(self, path: Path):
        self.path, self._rows = path, 0

    def update(self, history: Sequence[dict[str, Any]]) -> None:
        """All epochs so far. Rows that are there stay, so that a program can follow the file."""
        table = pd.DataFrame(list(history))
        if self._rows:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_format(table[self._rows :], header=False))
        else:
            write(table, self.path)
        self._rows = len(table)


def _format(history: pd.DataFrame, *, header: bool = True) -> str:
    return history.to_csv(index=False, header=header, lineterminator="\n", float_format="%.6g")
