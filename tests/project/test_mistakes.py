"""Mistakes of older projects, put in one at a time: each must fail the test that is named after it.

docs/explanation/mistakes.md shows the same list to people.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Mistake(NamedTuple):
    """Replacing ``old`` by ``new`` in ``file`` makes it; ``test`` must then fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


SRC = "src/brainseg/"
MISTAKES = [
    Mistake(
        "slices of one patient in train and test",
        f"{SRC}data/splitting.py",
        "    found = _find_units(slices, assigned, params)\n",
        '    params = params.model_copy(update={"unit": "slice"})\n'
        "    assigned = _assign(_select_units(slices, params), params)\n"
        "    found = _find_units(slices, assigned, params)\n",
        "data/test_splitting.py::test_subsets_are_disjoint_and_complete",
    ),
    Mistake(
        "masks interpolated and never thresholded",
        f"{SRC}io/grid.py",
        "return (covered >= 128).view(np.uint8)",
        "return covered",
        "io/test_grid.py::test_masks_stay_binary_and_keep_their_area",
    ),
    Mistake(
        "masks thresholded at 0.5 on a 0..255 scale",
        f"{SRC}io/grid.py",
        "return (covered >= 128).view(np.uint8)",
        "return (covered > 0.5).view(np.uint8)",
        "io/test_grid.py::test_mask_pixel_is_tumour_from_half_of_it_on",
    ),
    Mistake(
        "a rotation range that is not what its unit says",
        f"{SRC}training/augmentation.py",
        "math.radians(p.rotation)",
        "math.radians(p.rotation / 57.3)",
        "training/test_augmentation.py::test_rotation_is_in_degrees",
    ),
    Mistake(
        "BGR at prediction, RGB at training",
        f"{SRC}models/prediction.py",
        "        p = _sigmoid(network.predict_on_batch(batch))\n",
        "        batch = batch[..., ::-1]\n        p = _sigmoid(network.predict_on_batch(batch))\n",
        "models/test_prediction.py::test_channels_keep_their_order",
    ),
    Mistake(
        "Dice over the flattened batch with smooth = 100, reported as test Dice",
        f"{SRC}evaluation/metrics.py",
        "return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)",
        "return _ratio(2 * c.tp + KERAS_SMOOTH, 2 * c.tp + c.fp + c.fn + KERAS_SMOOTH)",
        "evaluation/test_evaluate.py::test_dice_over_the_flattened_batch_reported_as_test_dice",
    ),
    Mistake(
        "metrics printed under each other's names",
        f"{SRC}evaluation/scoring.py",
        '"dice_tumour": summarise(tumour.dice, tumour.patient)',
        '"dice_tumour": summarise(tumour.iou, tumour.patient)',
        "evaluation/test_evaluate.py::test_metrics_printed_under_each_others_names",
    ),
    Mistake(
        "the last of the test batches dropped",
        f"{SRC}evaluation/metrics.py",
        "for start in range(0, len(reference), KERAS_BATCH):",
        "for start in range(0, len(reference) - KERAS_BATCH + 1, KERAS_BATCH):",
        "evaluation/test_metrics.py::test_last_of_the_test_batches_dropped",
    ),
    Mistake(
        "the test set used to pick the threshold",
        f"{SRC}evaluation/evaluate.py",
        '_search_rules(cohorts["val"], model, params, chosen)',
        '_search_rules(cohorts["test"], model, params, chosen)',
        "evaluation/test_evaluate.py::test_test_set_used_to_pick_the_threshold",
    ),
    Mistake(
        "the test set used to pick the checkpoint",
        f"{SRC}training/trainer.py",
        'model.validation_step, data, data.rows("val"), batch_size',
        'model.validation_step, data, data.rows("test"), batch_size',
        "training/test_trainer.py::test_training_never_looks_at_the_test_patients",
    ),
    Mistake(
        "one file of weights saved, another one loaded",
        "stages/evaluate.py",
        'Path("models/unet.weights.h5")',
        'Path("models/unet.hdf5")',
        "project/test_contract.py::test_paths_in_a_script_are_the_declared_ones",
    ),
    Mistake(
        "skip connections taken before normalisation and activation",
        f"{SRC}models/unet.py",
        "        skips.append(x)\n",
        "        skips.append(x._keras_history.operation.input)\n",
        "models/test_networks.py::test_the_skip_is_taken_after_norm_and_activation",
    ),
    Mistake(
        "only the first slices used",
        f"{SRC}training/sampling.py",
        "    n_tumour = round(share * total)\n",
        "    empty = empty[:10]\n    n_tumour = round(share * total)\n",
        "training/test_sampling.py::test_everything_takes_its_turn_before_anything_comes_again",
    ),
    Mistake(
        "dvc.yaml declares a file that no script writes",
        "dvc.yaml",
        "      - metrics/calibration.csv:\n          cache: false\n",
        "      - metrics/never.csv:\n          cache: false\n      - metrics/calibration.csv:\n"
        "          cache: false\n",
        "project/test_contract.py::test_every_declared_out_is_named_by_the_code_that_writes_it",
    ),
    Mistake(
        "augment=True that does nothing",
        f"{SRC}training/augmentation.py",
        "        if training and any(value for name, value in self.params if name not in OUTSIDE_THE_STEP):\n",
        "        if False:\n",
        "training/test_augmentation.py::test_each_does_something_by_itself",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_the_list_fits_the_code_and_the_docs(mistake):
    """Each replacement applies exactly once, and docs/explanation/mistakes.md names mistake and test."""
    assert (ROOT / mistake.file).read_text(encoding="utf-8").count(mistake.old) == 1
    page = (ROOT / "docs/explanation/mistakes.md").read_text(encoding="utf-8")
    assert f"| {mistake.name} | `{mistake.test}` |" in page


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_put_in_it_fails_its_test(mistake, tmp_path):
    for name in ("src", "stages", "tests", "docs", "recipes", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert run(tmp_path, mistake.test) == 0, "fails already without the mistake"
    path = tmp_path / mistake.file
    path.write_text(path.read_text(encoding="utf-8").replace(mistake.old, mistake.new), encoding="utf-8")
    assert run(tmp_path, mistake.test) == 1


def run(folder: Path, test: str) -> int:
    """pytest's exit code: 0 passed, 1 failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{test}"]
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True).returncode
