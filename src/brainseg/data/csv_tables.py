"""CSV files as tables."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

CATEGORY = "category"
LINES = 2**14  # parsed or written at a time: pandas would take 131,072, with ten times their memory for the cells


def read_csv(source: Path | str, **options: Any) -> pd.DataFrame:
    """``pandas.read_csv`` that refuses a line of more cells than the header; pandas may move all columns for it.

    The text is read in parts, so that only the table is in memory.

    Args:
        source: a file, or the text of a table.

    Raises:
        ValueError: it holds such a line, or is no table.
    """
    with _open(source) as text:
        return pd.read_csv(text, index_col=False, **options)


def read_columns(source: Path, types: Mapping[str, str]) -> pd.DataFrame:
    """Those columns of ``types`` that a large table has, in little more memory than they take.

    Args:
        types: the type of each column: ``CATEGORY`` for text, else one of NumPy's. An empty cell of a float is NaN.

    Returns:
        Text as ordered categories, in the order of text: it sorts and compares as text does.

    Raises:
        ValueError: see ``read_csv``; or a cell is not of its type.
    """
    empty = {name: [""] for name, kind in types.items() if kind.startswith("float")}
    settings = {"dtype": types, "usecols": lambda name: name in types, "na_values": empty, "keep_default_na": False}
    with _open(source) as text:
        most = sum(1 for _ in text)  # rows: a line is at most one
        text.seek(0)
        with pd.read_csv(text, index_col=False, chunksize=LINES, **settings) as parts:
            return _join(parts, most)


def _join(parts: Iterable[pd.DataFrame], most: int) -> pd.DataFrame:
    """The rows of all parts, ``most`` at most. ``pd.concat`` needs twice the memory, and makes text of categories."""
    columns: dict[str, Any] = {}
    known: dict[str, dict[str, int]] = {}  # of each column of text: value → its number
    done = 0
    for part in parts:
        for name, column in part.items():
            values = column.to_numpy() if column.dtype != CATEGORY else _number(column, known.setdefault(name, {}))
            columns.setdefault(name, np.empty(most, values.dtype))[done : done + len(part)] = values
        done += len(part)
    for name, column in columns.items():
        columns[name] = _sort(column[:done], known[name]) if name in known else column[:done]
    return pd.DataFrame(columns, copy=False)


def _number(column: pd.Series, known: dict[str, int]) -> np.ndarray:
    """The number of each value. Values that are not known yet get the next ones."""
    own = [known.setdefault(value, len(known)) for value in column.cat.categories]
    return np.array(own, np.int32)[column.cat.codes]


def _sort(found: np.ndarray, known: Mapping[str, int]) -> pd.Categorical:
    """Values by their numbers, as ordered categories in the order of text."""
    values = sorted(known)
    places = np.empty(len(values), np.min_scalar_type(-len(values)))
    places[[known[value] for value in values]] = np.arange(len(values))
    codes = np.empty(len(found), places.dtype)
    for start in range(0, len(found), LINES):  # NumPy makes eight bytes of each number that it indexes with
        codes[start : start + LINES] = places[found[start : start + LINES]]
    return pd.Categorical.from_codes(codes, pd.Index(values, dtype=str), ordered=True)


@contextmanager
def _open(source: Path | str) -> Iterator[IO[str]]:
    """The text of a table, at its start. Raises ValueError: see ``_check_width``."""
    opened = partial(io.StringIO, source) if isinstance(source, str) else partial(source.open, encoding="utf-8-sig")
    with opened(newline="") as text:
        _check_width(text)
        text.seek(0)
        yield text


def _check_width(text: IO[str]) -> None:
    """Refuse a first line that is longer than the header; a later one pandas refuses."""
    try:
        lines = (line for line in csv.reader(text) if line)
        header, first = next(lines, []), next(lines, [])
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if len(first) > len(header):
        raise ValueError(f"the first line has {len(first):,} cells, the header {len(header):,}")
