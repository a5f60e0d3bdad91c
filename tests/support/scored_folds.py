"""Two folds as experiments whose scores fit on a sheet of paper: what git and DVC's cache would hold of them."""

import io
import json
from contextlib import nullcontext

import numpy as np
import pandas as pd

from brainseg import config
from brainseg.evaluation import evaluate, results
from brainseg.experiments import revision
from brainseg.experiments.fold_scores import Fold
from tests.support import scored_cohort
from tests.support.scored_cohort import SHIFTED, SQUARE, Patient, Slice

FIXED = {"min_component": 0, "threshold": 0.5, "temperature": 1.0, "bias": 0.0, "skew": 0.0}
PARAMS = config.load("evaluate").evaluate.model_copy(update=FIXED)
PROTOCOL = {"source": "kaggle", "unit": "patient", "grid": 10, "tta": "none", "marks": [], "empty_rule": "undefined"}


STAGE = {"cmd": "python a.py", "deps": ["src/brainseg/losses.py", "data/splits/split.csv"]}
PIPELINE = json.dumps({"stages": dict.fromkeys(revision.NUMBERS, STAGE)})
LOCK = json.dumps({"stages": {
    "preprocess": {"outs": [{"path": "data/processed/images.npy", "md5": "0a"}]},
    "split": {"params": {"params.yaml": {"split": {"test_fold": 1, "seed": 5}}}},
    "evaluate": {"params": {"params.yaml": {"evaluate": PARAMS.model_dump()}}},
}})  # fmt: skip


def fold_files(tested: list[Patient], everybody: int) -> dict[str, str]:
    """What an experiment holds whose test patients are these."""
    cases, masks, probability = scored_cohort.arrays([scored_cohort.VAL, *tested])
    counts = {"train": max(0, everybody - 1 - len(tested)), "val": 1, "test": len(tested)}
    protocol = PROTOCOL | {"patients": counts, "slices": counts}
    arrays = dict.fromkeys(("model", "one_slice", "flair_only", "flair"), probability)
    result = evaluate.evaluate(cases, masks, arrays, PARAMS, protocol)
    return {
        "dvc.lock": LOCK,
        "dvc.yaml": PIPELINE,
        "src/brainseg/losses.py": "# losses",
        "metrics/evaluation.json": results.text(result.report),
        "metrics/per_patient.csv": result.per_patient.to_csv(index=False),
        "metrics/per_slice.csv": result.per_slice.to_csv(index=False),
        "metrics/calibration.csv": result.calibration.to_csv(index=False),
        "metrics/probability_counts.csv": result.probability_counts.to_csv(index=False),
    }


PATIENTS = [
    Patient("A", "test", [Slice(SQUARE, SHIFTED), Slice([], [])], "X"),
    Patient("B", "test", [Slice(SQUARE, SQUARE)], "Y"),
    Patient("C", "test", [Slice(SQUARE, [])], "Y"),
]
SMALL = {"train": {"learning_rate": 1.2e-7}}  # more decimals than a score is given
FOLDS = [Fold(k, f"cv-abcdef01-{k}", SMALL | {"split": {"unit": "patient", "test_fold": k}}) for k in range(2)]


def experiments(monkeypatch, *contents: dict[str, str]) -> None:
    held = {fold.name: files for fold, files in zip(FOLDS, contents, strict=True)}
    monkeypatch.setattr(revision, "reader", lambda name, root: held[name].__getitem__)


def experiments_pictured(tmp_path, monkeypatch) -> None:
    """All patients in the folds' one data set, and each fold's predictions as DVC would fetch them."""
    cases, masks, probability = scored_cohort.arrays([scored_cohort.VAL, *PATIENTS])
    rows = cases.set_index("patient")["row"]
    parts = []
    for fold, tested in zip(FOLDS, (PATIENTS[:1], PATIENTS[1:]), strict=True):
        held = fold_files(tested, 3)
        slices = pd.read_csv(io.StringIO(held["metrics/per_slice.csv"]))
        slices["row"] = slices["patient"].map(rows.groupby("patient").min()) + slices.groupby("patient").cumcount()
        parts.append(held | {"metrics/per_slice.csv": slices.to_csv(index=False)})
        mine = cases["patient"].isin([patient.name for patient in (scored_cohort.VAL, *tested)]).to_numpy()
        names = ("probability", "flair_only")
        stored = {"row": cases["row"][mine], **dict.fromkeys(names, probability[mine])}
        np.savez(tmp_path / f"{fold.name}.npz", **stored)  # type: ignore[arg-type]
    experiments(monkeypatch, *parts)
    (tmp_path / "data/processed").mkdir(parents=True)
    first = int(cases["row"].min())
    masks = np.concatenate([np.zeros((first, *masks.shape[1:]), masks.dtype), masks])
    np.save(tmp_path / "data/processed/images.npy", np.zeros((*masks.shape, 3), np.uint8))
    np.save(tmp_path / "data/processed/masks.npy", masks)
    monkeypatch.setattr(revision, "fetched", lambda path, name, root: nullcontext(tmp_path / f"{name}.npz"))
