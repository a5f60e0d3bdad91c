"""What the screen shows of trials that run side by side: one live table, or a line for each change."""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

SHOWN = 12  # rows: what runs, then the best, then the newest
RUNNING = "running"


class Row(NamedTuple):
    """A trial. ``dice``: of the last epoch, at its end the objective."""

    number: int
    what: str
    state: str
    epoch: int = 0
    dice: float | None = None
    began: float = 0.0


class Board:
    """The rows of all trials; a context manager. Thread-safe.

    Args:
        epochs: of one trial, in all its folds.
        is_quiet: no table, also on a terminal: lines for a log.
    """

    def __init__(self, title: str, epochs: int, *, is_quiet: bool = False):
        self.title, self.epochs = title, epochs
        self.rows: dict[int, Row] = {}
        self.lock, self.console = threading.Lock(), Console()
        is_live = self.console.is_terminal and not is_quiet
        self.live = Live(console=self.console, get_renderable=self.draw, refresh_per_second=2) if is_live else None

    def __enter__(self) -> Self:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.__exit__(kind, error, trace)

    def begin(self, number: int, params: Mapping[str, Any]) -> None:
        what = "  ".join(f"{name.rpartition('.')[2]} {_short(value)}" for name, value in params.items())
        self._put(Row(number, what, RUNNING, began=time.monotonic()), f"trial {number}: {what}")

    def update(self, number: int, epoch: int, dice: float) -> None:
        row = self.rows[number]._replace(epoch=epoch, dice=dice)
        self._put(row, f"trial {number}: epoch {epoch} of {self.epochs}, validation {dice:.3f}{self.left(row)}")

    def end(self, number: int, state: str, dice: float | None) -> None:
        row = self.rows.get(number, Row(number, "", state))
        last = row.dice if dice is None else dice
        told = "" if last is None else f", {last:.4f}"
        self._put(row._replace(state=state, dice=last), f"trial {number}: {state}{told}")

    def _put(self, row: Row, line: str) -> None:
        with self.lock:
            self.rows[row.number] = row
            if not self.live:
                print(line, flush=True)

    def left(self, row: Row) -> str:
        """About how long the trial still takes."""
        if not row.epoch or row.state != RUNNING:
            return ""
        minutes = (self.epochs / row.epoch - 1) * (time.monotonic() - row.began) / 60
        return f", {minutes:.0f} min left"

    def draw(self) -> Table:
        table = Table(title=self.title, title_justify="left", box=None, pad_edge=False)
        for name in ("trial", "state", "epoch", "Dice", "parameters"):
            table.add_column(name, justify="right" if name in ("trial", "epoch", "Dice") else "left", no_wrap=True)
        with self.lock:
            rows = sorted(self.rows.values(), key=lambda r: (r.state != RUNNING, r.state != "done", -(r.dice or 0)))
        for row in rows[:SHOWN]:
            dice = "" if row.dice is None else f"{row.dice:.3f}"
            table.add_row(str(row.number), row.state + self.left(row), f"{row.epoch}/{self.epochs}", dice, row.what)
        if len(rows) > SHOWN:
            table.caption = f"and {len(rows) - SHOWN} more"
        return table


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
