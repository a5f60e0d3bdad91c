"""CSV files as tables."""

import csv
import io
from pathlib import Path
from typing import IO, Any

import pandas as pd


def read_csv(source: Path | IO[bytes] | str, **options: Any) -> pd.DataFrame:
    """``pandas.read_csv`` that refuses a line of more cells than the header; pandas may move all columns for it.

    Args:
        source: a file, or the text of a table.

    Raises:
        ValueError: it holds such a line, or is no table.
    """
    data = source.read_bytes() if isinstance(source, Path) else source if isinstance(source, str) else source.read()
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    try:
        lines = (line for line in csv.reader(io.StringIO(text, newline="")) if line)
        header, first = next(lines, []), next(lines, [])
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if len(first) > len(header):  # of a later line pandas refuses it
        raise ValueError(f"the first line has {len(first):,} cells, the header {len(header):,}")
    return pd.read_csv(io.StringIO(text), index_col=False, **options)
