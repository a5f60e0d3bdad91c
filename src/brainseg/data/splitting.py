"""Train, validation and test: patients apart, alike in institution and tumour burden, the same for any order of rows.

Patients are sorted by institution, tumour pixels and id and cut into blocks of neighbours; every fold takes
one of each block, and validation one of each larger block of the others.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from brainseg import config, files
from brainseg.data import dataset
from brainseg.errors import DataError, IntegrityError, Problem, raise_all

SUBSETS = ("train", "val", "test")
TRIES = 100  # seeds tried before a split without tumour in one part is refused


def run(slices_csv: Path, params: config.Split, out: Path) -> str:
    """Write the split of the slices in ``slices_csv``: columns row, patient, fold, subset. See :func:`split`."""
    slices = pd.read_csv(slices_csv, dtype={"patient": str, "institution": str}, keep_default_na=False)
    table = split(slices, params)
    with files.replacing(out) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    parts = {name: table[table["subset"] == name] for name in (*SUBSETS, "unused")}
    counts = [f"{name} {p['patient'].nunique():,} patients, {len(p):,} slices" for name, p in parts.items() if len(p)]
    return f"{out}: " + "; ".join(counts)


def split(slices: pd.DataFrame, params: config.Split) -> pd.DataFrame:
    """Deal patients (or what ``unit`` says) to folds and subsets.

    Args:
        slices: columns row, patient, institution, slice, tumour_pixels.
        params: the split block.

    Returns:
        Columns row, patient, fold, subset, in the order of ``slices``. Fold is -1 for what is unused, and for
        all with ``split.file``. The folds do not depend on ``test_fold``.

    Raises:
        DataError: too few patients or tumours, with counts; a file that does not fit.
        IntegrityError: a patient in two subsets, or ids that differ by case alone.
    """
    check_ids(slices["patient"])
    dealt = _from_file(slices, params.file, params) if params.file else _deal(_units(slices, params), params)
    keys = ["patient", "slice"] if params.unit == "slice" else ["patient"]
    table = slices.merge(dealt[[*keys, "fold", "subset"]], on=keys, how="left", validate="many_to_one")
    table = table.fillna({"fold": -1, "subset": "unused"}).astype({"fold": int})
    _check_tumour(table)
    return table[["row", "patient", "fold", "subset"]]


def fold_count(slices_csv: Path, params: config.Split) -> int:
    """How many folds there are: ``params.folds``, or an institution each, the small ones together.

    Raises:
        DataError: the slices, which tell the institutions, are not there yet.
    """
    if params.unit != "institution":
        return params.folds
    if not slices_csv.is_file():
        raise DataError(slices_csv, "there is no such file, which tells the institutions", "run: dvc repro preprocess")
    slices = pd.read_csv(slices_csv, dtype={"patient": str, "institution": str}, keep_default_na=False)
    return int(_institutions(_units(slices, params)).max()) + 1


def check_ids(patients: pd.Series) -> None:
    """Refuse ids that a person, or some file system, would take for the same patient.

    Raises:
        IntegrityError: naming them all.
    """
    ids = pd.Series(sorted(set(patients)), dtype=str)
    alike = ids.groupby(dataset.same(ids)).agg(list)
    raise_all(
        [
            Problem(" and ".join(group), "are ids of one patient written in different ways", "give it one id")
            for group in alike
            if len(group) > 1
        ],
        IntegrityError,
    )


def _units(slices: pd.DataFrame, params: config.Split) -> pd.DataFrame:
    """What is dealt, sorted whatever the order of rows: patient, institution, tumour_pixels and, of slices, slice."""
    patients = _sorted(slices.groupby("patient", as_index=False).agg({"institution": "min", "tumour_pixels": "sum"}))
    if params.patients is not None:
        if params.patients > len(patients):
            what = f"split.patients is {params.patients}, there are {len(patients)}"
            raise DataError("params.yaml", what, "lower it, or set it to null")
        patients = patients[_drawn(patients, params.patients, params.seed)]
    if params.unit == "slice":
        return _sorted(slices[slices["patient"].isin(patients["patient"])])
    return patients


def _kind(params: config.Split) -> str:
    return "slice" if params.unit == "slice" else "patient"


def _sorted(units: pd.DataFrame) -> pd.DataFrame:
    order = [key for key in ("institution", "tumour_pixels", "patient", "slice") if key in units]
    return units.sort_values(order, ignore_index=True)


def _deal(units: pd.DataFrame, params: config.Split) -> pd.DataFrame:
    """Add columns fold and subset."""
    folds = _institutions(units) if params.unit == "institution" else _stratified(units, params)
    if params.test_fold > max(folds):
        what = f"split.test_fold is {params.test_fold}, there are {max(folds) + 1} folds"
        raise DataError("params.yaml", what, f"set test_fold to 0 ... {max(folds)}")
    tumour = units["tumour_pixels"].to_numpy() > 0
    others = folds != params.test_fold
    count = max(1, round(params.val_fraction * others.sum()))
    if count >= others.sum():
        what = (
            f"validation takes {count} of {others.sum()} {_kind(params)}s outside the test fold, none is left to train"
        )
        raise DataError("params.yaml", what, "add data, or lower split.val_fraction")
    val = _retried(lambda seed: _drawn(units[others], count, seed), tumour[others], params)
    subset = np.full(len(units), "test", dtype=object)
    subset[others] = np.where(val, "val", "train")
    return units.assign(fold=folds, subset=subset)


def _stratified(units: pd.DataFrame, params: config.Split) -> np.ndarray:
    """Fold of each unit, alike in institution and tumour burden."""
    if len(units) < params.folds:
        what = f"{len(units)} {_kind(params)}s cannot be dealt to {params.folds} folds"
        raise DataError("params.yaml", what, "lower split.folds, or add data (3 patients at the very least)")
    tumour = units["tumour_pixels"].to_numpy() > 0
    return _retried(lambda seed: _folds(units, params.folds, seed), tumour, params)


def _institutions(units: pd.DataFrame) -> np.ndarray:
    """Fold of each patient: institutions by name, the small ones together last."""
    groups = units["patient"].map(dataset.institution_groups(units))
    names = sorted(set(groups), key=lambda name: (name == dataset.OTHER, name))
    if len(names) < 2:
        what = (
            f"all patients are of one institution, or of small ones (fewer than {dataset.SMALL_INSTITUTION} patients)"
        )
        raise DataError("params.yaml", what, "set split.unit: patient")
    return groups.map(names.index).to_numpy()


def _retried(draw, tumour: np.ndarray, params: config.Split) -> np.ndarray:
    """``draw(seed)``, or with the next seed that gives every part a tumour.

    Raises:
        DataError: there is none.
    """
    for seed in range(params.seed, params.seed + TRIES):
        parts = draw(seed)
        if all(tumour[parts == part].any() for part in np.unique(parts)):
            return parts
    counts = ", ".join(f"{tumour[parts == part].sum()} of {(parts == part).sum()}" for part in np.unique(parts))
    what = f"no split gives every part a {_kind(params)} with tumour (the last one tried: {counts})"
    raise DataError("params.yaml", what, "lower split.folds, raise split.val_fraction, or add data")


def _folds(units: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """Fold of each unit; ``units`` as :func:`_sorted` leaves them."""
    numbers = np.empty(len(units), dtype=int)
    dealer = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, members) in enumerate(dealer.split(units, _blocks(len(units), folds))):
        numbers[members] = fold
    return numbers


def _drawn(units: pd.DataFrame, count: int, seed: int) -> np.ndarray:
    """Which units (boolean) are among ``count`` drawn evenly from the sorted ``units``."""
    chosen = np.full(len(units), count == len(units))
    if not chosen.all():
        smaller = min(count, len(units) - count)
        blocks = _blocks(len(units), -(-len(units) // smaller))
        dealer = StratifiedShuffleSplit(1, test_size=count, random_state=seed)
        chosen[next(dealer.split(units, blocks))[1]] = True
    return chosen


def _blocks(count: int, size: int) -> np.ndarray:
    """Block of each of ``count`` neighbours, ``size`` at a time; an incomplete last block joins the one before."""
    return np.minimum(np.arange(count) // size, count // size - 1)


def _from_file(slices: pd.DataFrame, file: str, params: config.Split) -> pd.DataFrame:
    """The user's own split. Patients it does not name are unused."""
    path = files.project_root() / file
    if params.unit != "patient" or params.patients is not None:
        raise DataError("params.yaml", "split.file decides alone", "set split.unit: patient and split.patients: null")
    table = _read(path)
    check_ids(pd.concat([slices["patient"], table["patient"]]))
    known, allowed = set(slices["patient"]), (*SUBSETS, "unused")
    problems, doubled = [], []
    for patient, subsets in table.groupby("patient")["subset"].unique().items():
        place = f"{path}: {patient}"
        if len(subsets) > 1:
            doubled.append(Problem(place, f"is in {' and '.join(subsets)}", "name it once"))
        if patient not in known:
            problems.append(Problem(place, "no such patient in the data", "correct or remove the line"))
        for subset in sorted(set(subsets).difference(allowed)):
            problems.append(Problem(place, f"subset is {subset!r}", f"write one of {', '.join(allowed)}"))
    raise_all(doubled, IntegrityError)
    raise_all(problems)
    return table.drop_duplicates("patient").assign(fold=-1)


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, FileNotFoundError) as error:
        raise DataError(path, f"cannot be read ({error})", "set split.file to a CSV of patient, subset") from None
    if not {"patient", "subset"} <= set(table.columns):
        what = f"has columns {', '.join(table.columns)}"
        raise DataError(path, what, "give it the columns patient and subset")
    return table


def _check_tumour(table: pd.DataFrame) -> None:
    """Every subset has slices, and tumour: without it there is nothing to learn from or to score."""
    problems = []
    for subset in SUBSETS:
        mine = table[table["subset"] == subset]
        if not (mine["tumour_pixels"] > 0).any():
            what = f"the {subset} subset has {mine['patient'].nunique()} patients, {len(mine)} slices, none with tumour"
            problems.append(Problem("split", what, "add patients with tumour to it"))
    raise_all(problems)
