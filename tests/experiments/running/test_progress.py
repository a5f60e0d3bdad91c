"""The table of trainings, and the lines in its place."""

import io

import pytest
from rich.console import Console

from brainseg.experiments.running import progress
from brainseg.experiments.running.progress import Board
from brainseg.experiments.running.runner import Seen


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def shown(board):
    console = Console(file=io.StringIO(), width=120)
    console.print(board.draw())
    return console.file.getvalue().splitlines()


def test_lines_for_a_log(capsys, clock):
    board = Board("toy", "trial", 9, is_quiet=True)
    board.begin(3, "learning_rate 0.00123")
    board.see(3, Seen("waiting"))
    board.see(3, Seen("train", where="node7"))
    clock[0] += 60
    board.see(3, Seen("train", 2, 9, 0.5))
    board.see(3, Seen("evaluate"))
    board.end(3, "stopped")
    assert capsys.readouterr().out.splitlines() == [
        "trial 3: learning_rate 0.00123",
        "trial 3: train on node7",
        "trial 3: epoch 2 of 9, validation 0.500, 7 min left",
        "trial 3: evaluate on node7",
        "trial 3: stopped, last validation 0.5000",
    ]


def test_the_time_that_is_left_is_that_of_the_epochs_that_were_seen(clock):
    """A training that goes on from epoch 6 has not done 6 epochs in the first minute; nor does a queue count."""
    board = Board("toy", "fold", 10, is_quiet=True)
    board.begin(0, "cv-0")
    clock[0] += 6000
    board.see(0, Seen("train"))
    clock[0] += 60
    board.see(0, Seen("train", 6, 10, 0.5))
    assert board.left(board.rows[0]) == "4 min"
    clock[0] += 60
    board.see(0, Seen("train", 7, 10, 0.6))
    assert board.left(board.rows[0]) == "3 min"


def test_one_that_is_lost_and_begins_before_what_was_seen(capsys, clock):
    """It was resumed after epoch 5, its node dies, and another one has no checkpoint of it."""
    board = Board("toy", "fold", 10, is_quiet=True)
    board.begin(0, "cv-0")
    board.see(0, Seen("train"))
    board.see(0, Seen("train", 6, 10, 0.5))
    board.see(0, Seen("waiting"))
    clock[0] += 6000
    board.see(0, Seen("train"))
    for epoch in range(1, 6):
        clock[0] += 60
        board.see(0, Seen("train", epoch, 10, 0.5))
    assert capsys.readouterr().out.splitlines()[-1] == "fold 0: epoch 5 of 10, validation 0.500, 5 min left"
    board.end(0, progress.DONE, 0.75)
    assert capsys.readouterr().out == "fold 0: done, Dice 0.7500\n"


def test_the_table_has_state_epoch_dice_and_the_time_left(clock):
    board = Board("cross-validation", "fold", 4, is_quiet=True)
    for number in range(progress.SHOWN + 2):
        board.begin(number, f"cv-{number}")
    board.see(1, Seen("train", where="node7"))
    clock[0] += 120
    board.see(1, Seen("train", 2, 4, 0.25))
    board.end(0, progress.DONE, 0.75)
    table = shown(board)
    assert table[0].strip() == "cross-validation"
    assert table[1].split() == ["fold", "state", "epoch", "Dice", "left"]
    assert table[2].split() == ["1", "train", "on", "node7", "2/4", "0.250", "4", "min", "cv-1"]
    assert len(table) == 2 + progress.SHOWN + 1 and table[-1].strip() == "and 2 more"
    for number in range(2, progress.SHOWN + 2):
        board.end(number, "is there")
    rows = [line.split() for line in shown(board)[2:]]
    assert [row[:2] for row in rows[:3]] == [["1", "train"], ["0", "done"], ["2", "is"]]


def test_a_terminal_has_the_table_and_no_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "Console", lambda: Console(file=io.StringIO(), force_terminal=True))
    with Board("toy", "fold", 4) as board:
        board.begin(0, "cv-0")
        board.see(0, Seen("train", 1, 4, 0.5))
    assert capsys.readouterr().out == "" and "cv-0" in board.console.file.getvalue()
