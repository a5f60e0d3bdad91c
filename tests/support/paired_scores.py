"""One side of a comparison with the Dice values that a test gives."""

import pandas as pd

from brainseg.experiments import comparison
from brainseg.experiments.comparison import ComparedProtocol, Scores

PROTOCOL = {"source": "kaggle", "unit": "patient", "grid": 256, "marks": [], "empty_rule": "undefined"}
PARAMS = {"train": {"loss": "bce", "epochs": 3}, "split": {"file": None}}


def scores(dice, name="A", protocol=PROTOCOL, params=PARAMS, **columns) -> Scores:
    patients = [f"P{number:03}" for number in range(len(dice))]
    table = {"patient": patients, "institution": "X", "slices": 30, "tumour_pixels": 100, "subset": "test"}
    measures = dict.fromkeys(comparison.METRICS, dice)
    return Scores(name, pd.DataFrame(table | measures | columns), ComparedProtocol(**protocol), params)
