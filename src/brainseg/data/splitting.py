"""Train, validation and test: no patient in two of them, stratified by institution and tumour burden.

Patients are sorted by institution, tumour pixels and id, so that the order of rows has no influence, and cut into
blocks of neighbours. Every fold gets one patient of each block; validation gets one of each larger block of the rest.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from brainseg import config, files
from brainseg.data import csv_tables, dataset
from brainseg.data.dataset import SUBSETS
from brainseg.errors import DataError, IntegrityError, Problem, raise_all

TRIES = 100  # seeds that are tried before a split without tumour in one part is refused


def run(slices_csv: Path, params: config.Split, out: Path) -> str:
    """Write the split of the slices in ``slices_csv``: columns row, patient, fold, subset. See :func:`split`."""
    table = split(dataset.read_slices(slices_csv), params)
    with files.replacing(out) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", chunksize=csv_tables.LINES)
    found = table["subset"].cat.categories
    counts = [_describe_part(table, name) for name in (*SUBSETS, "unused") if name in found]
    return f"{out}: " + "; ".join(counts)


def _describe_part(table: pd.DataFrame, subset: str) -> str:
    patients = table.loc[table["subset"] == subset, "patient"]
    return f"{subset} {patients.nunique():,} patients, {len(patients):,} slices"


def split(slices: pd.DataFrame, params: config.Split) -> pd.DataFrame:
    """Assign patients, or the units that ``unit`` names, to folds and subsets.

    Args:
        slices: columns row, patient, institution, slice, tumour_pixels.
        params: the split block.

    Returns:
        Columns row, patient, fold, subset, in the order of ``slices``. Fold is -1 for unused rows, and for
        all rows with ``split.file``. The folds do not depend on ``test_fold``.

    Raises:
        DataError: too few patients or tumours, with counts; a file that does not match the data.
        IntegrityError: a patient in two subsets, or ids that differ only in case or Unicode form.
    """
    check_ids(slices["patient"])
    if len(slices) and not slices["tumour_pixels"].any():
        what = "has no slice with tumour, every mask is empty: there is nothing to learn"
        raise DataError("data/processed/slices.csv", what, "correct the masks, or preprocess.foreground if it is set")
    assigned = (
        _read_own_split(slices, params.file, params)
        if params.file
        else _assign_inner(_assign(_select_units(slices, params), params), params)
    )
    found = _find_units(slices, assigned, params)
    subset = pd.Categorical([*assigned["subset"], *["unused"] * bool((found < 0).any())])
    table = slices[["row", "patient"]].assign(
        fold=np.array([*assigned["fold"], -1], np.int16)[found],
        subset=pd.Categorical.from_codes(subset.codes[found], dtype=subset.dtype),
    )
    _check_tumour(slices, table["subset"])
    return table


def _find_units(slices: pd.DataFrame, assigned: pd.DataFrame, params: config.Split) -> np.ndarray:
    """The row of ``assigned`` that each slice belongs to; -1: it is unused."""
    patients = slices["patient"].astype(csv_tables.CATEGORY).cat
    if params.unit == "slice":
        keys = [patients.categories.get_indexer(assigned["patient"]), assigned["slice"]]
        units = pd.MultiIndex.from_arrays([patients.codes, slices["slice"]])
        return pd.MultiIndex.from_arrays(keys).get_indexer(units)
    return pd.Index(assigned["patient"]).get_indexer(patients.categories).astype(np.int32)[patients.codes]


def count_folds(slices_csv: Path, params: config.Split) -> int:
    """How many folds there are: the inner ones if there are any, else ``params.folds``, or one per institution.

    All small institutions are one.

    Raises:
        DataError: the table of slices, which names the institutions, does not exist yet.
    """
    if params.unit != "institution":
        return params.inner_folds or params.folds
    if not slices_csv.is_file():
        raise DataError(slices_csv, "does not exist; it names the institutions", "run: dvc repro preprocess")
    return int(_assign_institutions(_select_units(dataset.read_slices(slices_csv), params)).max()) + 1


def check_ids(patients: pd.Series) -> None:
    """Refuse ids that differ only in case or Unicode form: a person or a file system may take them for one patient.

    Raises:
        IntegrityError: naming all of them.
    """
    ids = pd.Series(sorted(patients.unique()), dtype=str)
    normal = dataset.normalise_ids(ids)
    shared = ids[normal.duplicated(keep=False)]
    raise_all(
        [
            Problem(" and ".join(group), "are ids of one patient written in different ways", "use one of them")
            for group in shared.groupby(normal[shared.index]).agg(list)
        ],
        IntegrityError,
    )


def _select_units(slices: pd.DataFrame, params: config.Split) -> pd.DataFrame:
    """The units to assign, sorted: columns patient, institution, tumour_pixels and, if units are slices, slice."""
    facts = {"institution": "min", "tumour_pixels": "sum"}
    patients = _sort_units(_sum_runs(slices).groupby("patient", as_index=False, observed=True).agg(facts))
    patients = patients.astype({"patient": str, "institution": str})
    if params.patients is not None:
        if params.patients > len(patients):
            what = f"split.patients is {params.patients}, there are {len(patients)}"
            raise DataError("params.yaml", what, "lower it, or set it to null")
        patients = patients[_draw(patients, params.patients, params.seed)]
    if params.unit == "slice":
        return _sort_units(slices[slices["patient"].isin(patients["patient"])])
    return patients


def _sum_runs(slices: pd.DataFrame) -> pd.DataFrame:
    """A row for each run of slices of a patient, nearly always one a patient: columns as those of ``_select_units``."""
    names = "patient", "institution"
    patients, institutions = (slices[name].astype(csv_tables.CATEGORY).cat.as_ordered().array for name in names)
    if not len(slices):
        return pd.DataFrame({"patient": patients, "institution": institutions, "tumour_pixels": 0})
    starts = np.flatnonzero(np.r_[True, patients.codes[1:] != patients.codes[:-1]])
    first = np.minimum.reduceat(institutions.codes, starts)
    tumour = np.add.reduceat(slices["tumour_pixels"].to_numpy(), starts, dtype=np.int64)
    named = pd.Categorical.from_codes(first, institutions.categories, ordered=True)
    return pd.DataFrame({"patient": patients[starts], "institution": named, "tumour_pixels": tumour})


def _name_unit(params: config.Split) -> str:
    return "slice" if params.unit == "slice" else "patient"


def _sort_units(units: pd.DataFrame) -> pd.DataFrame:
    order = [key for key in ("institution", "tumour_pixels", "patient", "slice") if key in units]
    return units.sort_values(order, ignore_index=True)


def _assign(units: pd.DataFrame, params: config.Split) -> pd.DataFrame:
    """Add columns fold and subset."""
    folds = _assign_institutions(units) if params.unit == "institution" else _stratify(units, params)
    if params.test_fold > max(folds):
        what = f"split.test_fold is {params.test_fold}, there are {max(folds) + 1} folds"
        raise DataError("params.yaml", what, f"set test_fold to 0 ... {max(folds)}")
    tumour = units["tumour_pixels"].to_numpy() > 0
    others = folds != params.test_fold
    count = max(1, round(params.val_fraction * others.sum()))
    if count >= others.sum():
        what = (
            f"validation takes {count} of {others.sum()} {_name_unit(params)}s outside the test fold, train gets none"
        )
        raise DataError("params.yaml", what, "add data, or lower split.val_fraction")
    val = _draw_with_tumour(lambda seed: _draw(units[others], count, seed), tumour[others], params)
    subset = np.full(len(units), "test", dtype=object)
    subset[others] = np.where(val, "val", "train")
    return units.assign(fold=folds, subset=subset)


def _assign_inner(units: pd.DataFrame, params: config.Split) -> pd.DataFrame:
    """With ``inner_folds``: the units outside the test fold, dealt again to these folds, without those in it."""
    if params.inner_folds is None:
        return units
    others = units[units["subset"] != "test"].drop(columns=["fold", "subset"]).reset_index(drop=True)
    inner = params.model_copy(update={"folds": params.inner_folds, "test_fold": params.inner_fold})
    return _assign(others, inner)


def _stratify(units: pd.DataFrame, params: config.Split) -> np.ndarray:
    """Fold of each unit, stratified by institution and tumour burden."""
    if len(units) < params.folds:
        what = f"{len(units)} {_name_unit(params)}s cannot be divided into {params.folds} folds"
        raise DataError("params.yaml", what, "lower split.folds, or add data (at least 3 patients)")
    tumour = units["tumour_pixels"].to_numpy() > 0
    return _draw_with_tumour(lambda seed: _draw_folds(units, params.folds, seed), tumour, params)


def _assign_institutions(units: pd.DataFrame) -> np.ndarray:
    """Fold of each patient: one per institution, sorted by name; all small institutions are the last fold."""
    groups = units["patient"].map(dataset.group_institutions(units))
    names = sorted(set(groups), key=lambda name: (name == dataset.OTHER, name))
    if len(names) < 2:
        what = f"all patients are of one institution, or of ones with fewer than {dataset.SMALL_INSTITUTION} patients"
        raise DataError("params.yaml", what, "set split.unit: patient")
    return groups.map(names.index).to_numpy()


def _draw_with_tumour(draw, tumour: np.ndarray, params: config.Split) -> np.ndarray:
    """``draw(seed)`` with the first seed, from ``split.seed`` on, that gives every part a tumour.

    Raises:
        DataError: no seed of TRIES does.
    """
    for seed in range(params.seed, params.seed + TRIES):
        parts = draw(seed)
        if all(tumour[parts == part].any() for part in np.unique(parts)):
            return parts
    counts = ", ".join(f"{tumour[parts == part].sum()} of {(parts == part).sum()}" for part in np.unique(parts))
    what = f"no split gives every part a {_name_unit(params)} with tumour (the last one tried: {counts})"
    raise DataError("params.yaml", what, "lower split.folds, raise split.val_fraction, or add data")


def _draw_folds(units: pd.DataFrame, folds: int, seed: int) -> np.ndarray:
    """Fold of each unit; ``units`` must be sorted by :func:`_sort_units`."""
    numbers = np.empty(len(units), dtype=int)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, members) in enumerate(splitter.split(units, _number_blocks(len(units), folds))):
        numbers[members] = fold
    return numbers


def _draw(units: pd.DataFrame, count: int, seed: int) -> np.ndarray:
    """Boolean: True for ``count`` random units, stratified over the sorted ``units``."""
    chosen = np.full(len(units), count == len(units))
    if not chosen.all():
        smaller = min(count, len(units) - count)
        blocks = _number_blocks(len(units), -(-len(units) // smaller))
        splitter = StratifiedShuffleSplit(1, test_size=count, random_state=seed)
        chosen[next(splitter.split(units, blocks))[1]] = True
    return chosen


def _number_blocks(count: int, size: int) -> np.ndarray:
    """Block of each of ``count`` neighbours, ``size`` in a block; an incomplete last block joins the one before."""
    return np.minimum(np.arange(count) // size, count // size - 1)


def _read_own_split(slices: pd.DataFrame, file: str, params: config.Split) -> pd.DataFrame:
    """The user's own split. Patients that it does not name are unused."""
    path = files.project_root() / file
    if params.unit != "patient" or params.patients is not None:
        what = "split.file can be used only with split.unit: patient and split.patients: null"
        raise DataError("params.yaml", what, "set split.unit: patient and split.patients: null")
    table = _read_table(path)
    known, allowed = set(slices["patient"].unique()), (*SUBSETS, "unused")
    check_ids(pd.Series([*known, *table["patient"]]))
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


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = csv_tables.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, FileNotFoundError) as error:
        raise DataError(path, f"cannot be read ({error})", "set split.file to a CSV of patient, subset") from None
    if not {"patient", "subset"} <= set(table.columns):
        what = f"has columns {', '.join(table.columns)}"
        raise DataError(path, what, "give it the columns patient and subset")
    return table


def _check_tumour(slices: pd.DataFrame, subsets: pd.Series) -> None:
    """Refuse a subset without tumour: there is nothing to learn from or to score."""
    problems, with_tumour = [], set(subsets[slices["tumour_pixels"] > 0].unique())
    for subset in SUBSETS:
        if subset not in with_tumour:
            mine = slices.loc[subsets == subset, "patient"]
            what = f"the {subset} subset has {mine.nunique()} patients, {len(mine)} slices, none with tumour"
            problems.append(Problem("split", what, "add patients with tumour to it"))
    raise_all(problems)
