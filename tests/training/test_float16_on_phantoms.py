"""float16 loses nothing: phantoms are learned as in float32. A processor emulates it, which takes minutes."""

import pandas as pd
import pytest

from tests.support import tiny_pipeline
from tests.support.tiny_pipeline import TINY, repro

CHANGES = TINY | {
    "phantom": {"patients": 30, "slices": 12, "size": 64},
    "split": {"val_fraction": 0.5},  # 12 patients: of two the Dice of one seed is 0.06 away from that of another
    "train": {"epochs": 32, "batch_size": 8, "ema": 0.95, "learning_rate": 0.005},
    "network": {"filters": 16, "depth": 2},
}
ALLOWED = 0.03


@pytest.mark.slow
def test_phantoms_are_learned_as_in_float32(tmp_path):
    repository = tiny_pipeline.create(tmp_path / "project", CHANGES)
    dice = {}
    for precision in ("float32", "float16"):
        output = repro(repository, "-S", f"train.precision={precision}", "train", command=("exp", "run"))
        assert f"tensorflow on cpu, {precision}" in output
        table = pd.read_csv(repository.folder / "metrics/training.csv")
        dice[precision] = table["val_volume_dice"].iloc[-1]
    assert dice["float32"] > 0.75
    assert abs(dice["float16"] - dice["float32"]) <= ALLOWED, dice
