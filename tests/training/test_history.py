"""metrics/training.csv while a training runs."""

import pandas as pd

from brainseg.training import history

ROWS = [{"epoch": n, "loss": 1 / n / 3, "val_volume_dice": float("nan") if n == 2 else 0.5} for n in (1, 2, 3)]


def test_the_table_grows_by_the_row_to_that_of_the_whole_training(tmp_path):
    live, whole = tmp_path / "live.csv", tmp_path / "whole.csv"
    table = history.LiveTable(live)
    table.update(ROWS[:1])
    with live.open(encoding="utf-8") as follower:
        seen = [follower.read()]
        for count in (2, 3):
            table.update(ROWS[:count])
            seen.append(follower.read())
    history.write(pd.DataFrame(ROWS), whole)
    assert [text.count("\n") for text in seen] == [2, 1, 1]
    assert "".join(seen) == live.read_text() == whole.read_text()
    assert live.read_text().splitlines()[2] == "2,0.166667,"


def test_a_training_that_goes_on_begins_with_the_rows_of_its_checkpoint(tmp_path):
    path = tmp_path / "live.csv"
    path.write_text("epoch,loss,val_volume_dice\n1,0.33")  # of a process that was killed
    table = history.LiveTable(path)
    table.update(ROWS[:2])
    table.update(ROWS)
    history.write(pd.DataFrame(ROWS), tmp_path / "whole.csv")
    assert path.read_text() == (tmp_path / "whole.csv").read_text()


def test_another_file_in_its_place_is_not_added_to(tmp_path):
    """Git tracks the table of the committed run, and may put it back in another terminal."""
    path = tmp_path / "live.csv"
    table = history.LiveTable(path)
    table.update(ROWS[:1])
    path.unlink()
    path.write_text("epoch,loss\n1,0.9\n2,0.8\n")
    table.update(ROWS[:2])
    path.unlink()
    table.update(ROWS)
    history.write(pd.DataFrame(ROWS), tmp_path / "whole.csv")
    assert path.read_text() == (tmp_path / "whole.csv").read_text()
