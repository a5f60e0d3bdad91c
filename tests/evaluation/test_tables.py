"""Tables of scores are written a part at a time, as they would be whole."""

import numpy as np
import pandas as pd
import pytest

from brainseg.evaluation import tables


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 10])
def test_a_table_that_is_written_in_parts_has_the_text_of_the_whole(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(tables, "ROWS", 3)
    table = pd.DataFrame({
        "patient": pd.Categorical([f"P{number // 2}" for number in range(10)]),
        "institution": ["plain", 'with "quotes", and a comma', "two\nlines", "", "é"] * 2,
        "dice": [1 / 3, np.nan, 1e-9, 123456.789, 0.0] * 2,
        "tp": range(10),
    })[:rows]  # fmt: skip
    tables.write(table, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_bytes().decode() == tables.to_text(table)
