"""The form of every table of scores, and the digests by which a report knows its own."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainseg import files

FORM: dict[str, Any] = {"lineterminator": "\n", "float_format": "%.6g"}
ROWS = 2**12  # whose text is in memory at a time
KINDS = ("other_pixels", "tumour_pixels")


def to_text(table: pd.DataFrame) -> str:
    """The text of a table's CSV file, numbers with six digits."""
    return table.to_csv(index=False, **FORM)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write what ``to_text`` returns, a part at a time, through a temporary file."""
    with files.replacing(path) as temporary:
        table.to_csv(temporary, index=False, chunksize=ROWS, **FORM)


def count_probabilities(joint: np.ndarray) -> pd.DataFrame:
    """Pixels without and with tumour for each probability in 255ths, from a joint histogram (2, 256)."""
    return pd.DataFrame({"level": range(joint.shape[1]), **dict(zip(KINDS, joint.astype(int), strict=True))})


def read_counts(table: pd.DataFrame) -> np.ndarray:
    """The joint histogram (2, 256) that ``count_probabilities`` wrote."""
    return table.set_index("level")[list(KINDS)].reindex(range(256), fill_value=0).to_numpy().T


def digests(texts: Mapping[str, str]) -> dict[str, str]:
    """sha256 of each file, by its name and its text."""
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
