"""What the screen shows of trainings that run side by side: one live table, or a line for each change."""

import threading
import time
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from brainseg.experiments.running.runner import Seen

SHOWN = 12  # rows: what runs, then the best, then the newest
BEGUN, DONE = "waiting", "done"
ENDED = (DONE, "stopped", "failed", "is there")


class Row(NamedTuple):
    """A training, or several one after the other. ``dice``: of the last epoch, or the score of its end.

    ``first``: the first epoch that was seen, ``since``: when it began, in seconds.
    """

    number: int
    what: str
    state: str = BEGUN
    epoch: int = 0
    dice: float | None = None
    where: str = ""
    first: int = 0
    since: float = 0.0


class Board:
    """The rows of all trainings; a context manager. Thread-safe.

    Args:
        noun: what a row is: a trial, a fold.
        epochs: of one row.
        is_quiet: no table, also on a terminal: lines for a log.
    """

    def __init__(self, title: str, noun: str, epochs: int, *, is_quiet: bool = False):
        self.title, self.noun, self.epochs = title, noun, epochs
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

    def begin(self, number: int, what: str) -> None:
        self._put(Row(number, what), f": {what}")

    def see(self, number: int, seen: Seen) -> None:
        """Show a state or an epoch. ``seen.epoch`` counts on through all trainings of the row."""
        row, now = self.rows[number], time.monotonic()
        if seen.state == BEGUN or 0 < seen.epoch <= row.epoch:  # it was lost, and may begin before what was seen
            row = row._replace(epoch=0, first=0, since=now)
        is_other = seen.state not in ("", row.state)
        where = "" if seen.state == BEGUN else seen.where or row.where
        row = row._replace(state=seen.state or row.state, where=where)
        if is_other and not row.epoch:
            row = row._replace(since=now)
        if not seen.epoch:
            self._put(row, f": {row.state}{f' on {where}' if where else ''}" if is_other else "")
            return
        row = row._replace(epoch=seen.epoch, dice=seen.dice, first=row.first or seen.epoch)
        left = self.left(row)
        told = f": epoch {seen.epoch} of {self.epochs}, validation {seen.dice:.3f}"
        self._put(row, f"{told}, {left} left" if left else told)

    def end(self, number: int, state: str, dice: float | None = None) -> None:
        row = self.rows.get(number, Row(number, ""))
        last = row.dice if dice is None else dice
        told = "" if last is None else f", {'last validation' if dice is None else 'Dice'} {last:.4f}"
        self._put(row._replace(state=state, dice=last), f": {state}{told}")

    def _put(self, row: Row, line: str) -> None:
        with self.lock:
            self.rows[row.number] = row
            if line and not self.live:
                print(f"{self.noun} {row.number}{line}", flush=True)

    def left(self, row: Row) -> str:
        """About how long the epochs that are left still take: as those that were seen."""
        if not row.epoch or row.state in ENDED:
            return ""
        seen = row.epoch - row.first + 1
        return f"{(self.epochs - row.epoch) / seen * (time.monotonic() - row.since) / 60:.0f} min"

    def draw(self) -> Table:
        table = Table(title=self.title, title_justify="left", box=None, pad_edge=False)
        for name in (self.noun, "state", "epoch", "Dice", "left", ""):
            table.add_column(name, justify="left" if name in ("state", "") else "right", no_wrap=True)
        with self.lock:
            rows = sorted(self.rows.values(), key=lambda r: (r.state in ENDED, r.state != DONE, -(r.dice or 0)))
        for row in rows[:SHOWN]:
            dice = "" if row.dice is None else f"{row.dice:.3f}"
            state = f"{row.state} on {row.where}" if row.where and row.state not in ENDED else row.state
            table.add_row(str(row.number), state, f"{row.epoch}/{self.epochs}", dice, self.left(row), row.what)
        if len(rows) > SHOWN:
            table.caption = f"and {len(rows) - SHOWN} more"
        return table
