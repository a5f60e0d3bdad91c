"""The processed slices with their split: memory maps and a table, nothing is copied."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainseg import files
from brainseg.data import csv_tables
from brainseg.errors import DataError, IntegrityError, Problem, guard, raise_all
from brainseg.io.sequences import FLAIR

SUBSETS = ("train", "val", "test")
TRAINED_ON = {"train": ("train",), "train_and_val": ("train", "val"), "all": SUBSETS}  # by train.subset
SMALL_INSTITUTION = 10  # institutions with fewer patients are grouped: a mean over three patients says nothing
OTHER = "other"  # the name of that group
NAMES = ("patient", "institution", "spacing")  # columns of text that repeats
# The number of a slice may be a date and a time.
COMPACT = dict.fromkeys(NAMES, csv_tables.CATEGORY) | {"row": "int32", "slice": "int64", "tumour_pixels": "int32"}
REMEDY = "run: dvc repro"  # of a file that cannot be read


@dataclass(frozen=True)
class Dataset:
    """``images`` (N, H, W, C) uint8; ``masks`` (N, H, W) uint8 in {0, 1}; ``slices``: one row each, with its subset.

    ``brains`` (N, H, ceil(W / 8)) uint8: the brain masks, a bit a pixel, see ``brains.masks``; None: there are none.
    """

    images: np.ndarray
    masks: np.ndarray
    slices: pd.DataFrame
    brains: np.ndarray | None = None

    def brain(self, rows: np.ndarray) -> np.ndarray:
        """The brain masks (*rows.shape, H, W) uint8 in {0, 1} of some slices; 1 everywhere where none is known."""
        if self.brains is None:
            return np.ones((*np.shape(rows), *self.images.shape[1:3]), np.uint8)
        return np.unpackbits(self.brains[rows], axis=-1, count=self.images.shape[2])

    def rows(self, *subsets: str) -> np.ndarray:
        """Row numbers of the given subsets, in order."""
        return np.flatnonzero(self.slices["subset"].isin(subsets))

    def windows_around(self, rows: np.ndarray, context: int) -> np.ndarray:
        """(n, 2 context + 1) row numbers: each row between its neighbours of the same patient, the ends repeated."""
        first, last = self.ends
        windows = np.asarray(rows)[:, None] + np.arange(-context, context + 1)
        return np.clip(windows, first[rows][:, None], last[rows][:, None])

    def tiles(self, rows: np.ndarray, context: int, stride: int) -> np.ndarray:
        """(n, 2 context + 1) row numbers: windows every ``stride`` slices that cover ``rows``, whole patients.

        The last window of a patient ends with its last slice. If a patient has fewer slices than a window, its last
        slice is repeated.
        """
        size = 2 * context + 1
        first, last = self.ends
        windows = []
        for start, end in sorted({(int(first[row]), int(last[row])) for row in rows}):
            starts = [*range(start, end + 1 - size, stride), max(start, end + 1 - size)]
            windows += [np.minimum(np.arange(begin, begin + size), end) for begin in starts]
        return np.stack(windows)

    @cached_property
    def patient(self) -> np.ndarray:
        """(N,) the number of each slice's patient, in the order of their ids."""
        return self.slices["patient"].astype("category").cat.codes.to_numpy()

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last row of each row's patient; the rows of a patient are consecutive."""
        starts = np.flatnonzero(np.r_[True, self.patient[1:] != self.patient[:-1]])
        member = np.searchsorted(starts, np.arange(len(self.patient)), side="right") - 1
        return starts[member], np.r_[starts[1:], len(self.patient)][member] - 1

    def split_by_patient(self, rows: np.ndarray) -> list[np.ndarray]:
        """The given rows, in rising order, of each patient."""
        return np.split(rows, np.flatnonzero(np.diff(self.patient[rows])) + 1) if len(rows) else []

    def counts(self, of: str) -> dict[str, int]:
        """Patients (``of="patient"``) or slices (``of="row"``) in train, val and test."""
        return {s: int(self.slices.loc[self.slices["subset"] == s, of].nunique()) for s in SUBSETS}


@dataclass(frozen=True)
class Changed:
    """An array (N, ...) or memory map whose parts are changed when they are read; indexed like it, of its shape."""

    array: Any
    change: Callable[[np.ndarray], np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, places: Any) -> np.ndarray:
        return self.change(self.array[places])


def repeat_flair(images: np.ndarray) -> np.ndarray:
    """Images (..., H, W, C) with FLAIR in every channel."""
    return np.repeat(images[..., FLAIR, None], images.shape[-1], axis=-1)


@dataclass(frozen=True)
class LazyRows:
    """Some rows of an array (N, ...) or memory map, read when they are indexed; ``channel``: one of its last axis.

    Indexed by whole numbers or a slice, as the array (n, ...) is that it stands for.
    """

    array: Any
    rows: np.ndarray
    channel: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        rest = self.array.shape[1:]
        return (len(self.rows), *(rest if self.channel is None else rest[:-1]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Any) -> np.ndarray:
        found = self.array[self.rows[places]]
        return found if self.channel is None else found[..., self.channel]


def stack_channels(images: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """(n, H, W, K C): the slices of each window (n, K) of row numbers, concatenated along the channels."""
    if windows.shape[1] == 1:
        return images[windows[:, 0]]
    return np.concatenate([images[rows] for rows in windows.T], axis=-1)


def read_slices(path: Path) -> pd.DataFrame:
    """The table of slices that preprocess wrote, without ``source``, in about 20 bytes a slice.

    ``NAMES`` are categories in the order of text; ids such as ``001`` and ``NA`` stay text.
    """
    with guard(path, REMEDY, IntegrityError):
        table = csv_tables.read_columns(path, COMPACT)
        table["patient"]  # a damaged header names no column
        return table


def open_arrays(processed: Path) -> tuple[np.ndarray, np.ndarray]:
    """Memory maps of the images and masks that preprocess wrote."""
    return _open(processed / "images.npy"), _open(processed / "masks.npy")


def _open(path: Path) -> np.ndarray:
    with guard(path, REMEDY, IntegrityError):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def load(processed: Path, split: Path, unit: str) -> Dataset:
    """Open what preprocess and split wrote, and what brains wrote if it is there.

    Raises:
        IntegrityError: the files are damaged or do not belong together, or a patient is in two subsets.
        DataError: a subset is empty.
    """
    slices, (images, masks) = read_slices(processed / "slices.csv"), open_arrays(processed)
    brains = _open(processed / "brains.npy") if (processed / "brains.npy").exists() else None
    if brains is not None and brains.shape != (*images.shape[:2], -(-images.shape[2] // 8)):
        what = f"has masks of shape {brains.shape}, which do not fit {len(images)} slices"
        raise IntegrityError(processed / "brains.npy", what, REMEDY)
    with guard(split, "run: dvc repro split", IntegrityError):
        types = {"patient": csv_tables.CATEGORY, "subset": csv_tables.CATEGORY, "fold": "int16"}
        parts = csv_tables.read_columns(split, types)
        same = parts["patient"].equals(slices["patient"])
        if not same or not len(parts) == len(images) == len(masks):
            what = f"{len(parts)} rows that do not match the {len(slices)} slices"
            raise IntegrityError(split, what, "run: dvc repro split")
        table = slices.assign(fold=parts["fold"], subset=parts["subset"])
    if unit != "slice":
        check_patients_apart(table, split)
    for subset in SUBSETS:
        if not (table["subset"] == subset).any():
            raise DataError(split, f"no {subset} slices", "correct the split block of params.yaml")
    return Dataset(images, masks, table, brains)


def group_institutions(slices: pd.DataFrame) -> pd.Series:
    """Institution of each patient of ``slices``, indexed by patient; all small institutions become OTHER."""
    # as text: the index of categories would stay one, and neither map nor where takes another value then
    of = slices.groupby("patient", observed=True)["institution"].min().astype(str).rename(str)
    return of.where(of.map(of.value_counts()) >= SMALL_INSTITUTION, OTHER)


def normalise_ids(patients: pd.Series) -> pd.Series:
    """Each id in the form that all spellings of a patient's id share: Unicode's composed form (NFC), without case."""
    return patients.map(lambda patient: unicodedata.normalize("NFC", patient).casefold())


def check_patients_apart(table: pd.DataFrame, path: Path) -> None:
    """Refuse a patient in two subsets, also when the ids differ only in case or in Unicode form.

    Raises:
        IntegrityError: naming every such patient.
    """
    pairs = table[["patient", "subset"]].drop_duplicates().astype(str)
    used = pairs[pairs["subset"] != "unused"]
    subsets = used.groupby(normalise_ids(used["patient"]))["subset"].unique()
    raise_all(
        [
            Problem(str(path), f"patient {patient} is in {' and '.join(sorted(found))}", "run: dvc repro -f split")
            for patient, found in subsets.items()
            if len(found) > 1
        ],
        IntegrityError,
    )


def digests(processed: Path, split: Path) -> dict[str, str]:
    """sha256 of what a model is trained on: images, masks, brain masks if there are any, table of the slices, split."""
    names = ("images.npy", "masks.npy", "brains.npy", "slices.csv")
    paths = [*(processed / name for name in names if name != "brains.npy" or (processed / name).exists()), split]
    return {f"{path.stem}_sha256": files.sha256(path) for path in paths}
