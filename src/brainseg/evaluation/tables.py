"""The form of every table of scores, and the digests by which a report knows its own."""

import hashlib
from collections.abc import Mapping

import pandas as pd


def to_text(table: pd.DataFrame) -> str:
    """The text of a table's CSV file, numbers with six digits."""
    return table.to_csv(index=False, lineterminator="\n", float_format="%.6g")


def digests(texts: Mapping[str, str]) -> dict[str, str]:
    """sha256 of each file, by its name and its text."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
