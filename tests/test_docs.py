"""Numbers in prose are those of the committed run."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
REPORT = json.loads((ROOT / "metrics/evaluation.json").read_text(encoding="utf-8"))
TEST = REPORT["test"]
SLICES = pd.read_csv(ROOT / "metrics/per_slice.csv").query("subset == 'test'")


def rows(name: str) -> dict[str, list[str]]:
    """First cell → the others, of every table in a Markdown file."""
    lines = re.findall(r"^\|(.+)\|$", (ROOT / name).read_text(encoding="utf-8"), re.M)
    cells = [[cell.strip(" *") for cell in line.split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def interval(block: dict, digits: int = 3) -> str:
    return f"{block['mean']:.{digits}f} [{block['lo']:.{digits}f}, {block['hi']:.{digits}f}]"


CONVENTIONS = {
    "Dice per patient, all slices together, mean": TEST["volume"]["dice"]["mean"],
    "the same, median": TEST["volume"]["dice"]["median"],
    "Dice per slice, slices with tumour, mean": TEST["slice"]["dice_tumour"]["mean"],
    "Dice per slice, all slices, a right empty one counts 1": TEST["slice"]["dice_empty_as_one"]["mean"],
    "Dice per slice, all slices, a right empty one counts 0": SLICES["dice"].fillna(0).mean(),
    "Dice of all pixels pooled (pixel F1)": TEST["pooled"]["dice"],
    "soft Dice of batches of 32, smooth = 100": TEST["keras"]["dice_batch_soft"],
    "IoU of all pixels pooled": TEST["pooled"]["iou"],
    "soft IoU of batches of 32, smooth = 100": TEST["keras"]["iou_batch_soft"],
    "pixel accuracy": TEST["pooled"]["pixel_accuracy"],
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_one_model_under_every_convention(convention):
    assert rows("docs/comparability.md")[convention][0] == f"{CONVENTIONS[convention]:.3f}"


def test_results_in_the_readme():
    table = rows("README.md")
    for name, block, digits in (
        ("volume Dice** (per patient, all slices together)", TEST["volume"]["dice"], 3),
        ("volume IoU", TEST["volume"]["iou"], 3),
        ("Dice of slices with tumour", TEST["slice"]["dice_tumour"], 3),
        ("95th percentile Hausdorff distance of those slices, pixels", TEST["slice"]["hd95"], 1),
        ("baseline: threshold on FLAIR, volume Dice", REPORT["baselines"]["flair_threshold"]["volume"]["dice"], 3),
    ):
        assert table[name] == [interval(block, digits), f"{block['median']:.{digits}f}"], name
    single = {
        "Dice of all pixels pooled": TEST["pooled"]["dice"],
        "slices with tumour where any is marked": TEST["detection"]["slice_sensitivity"],
        "slices without tumour where any is marked": TEST["detection"]["slice_false_positive_rate"],
        "the same model, given FLAIR alone, volume Dice": TEST["alone"]["flair_only_dice"],
    }
    assert {name: table[name][0] for name in single} == {name: f"{value:.3f}" for name, value in single.items()}
    val = REPORT["val"]["volume"]["dice"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"volume Dice mean {interval(val)}, median {val['median']:.3f}." in text


def test_sizes_in_the_model_card():
    text = " ".join((ROOT / "docs/model-card.md").read_text(encoding="utf-8").split())
    test, val = (REPORT[subset]["by_size"] for subset in ("test", "val"))
    assert f"(mean volume Dice {test['large']['dice']:.3f} against {test['small']['dice']:.3f} for" in text
    assert f"({val['small']['dice']:.3f} against {val['large']['dice']:.3f})" in text
    assert TEST["volume"]["dice"]["mean"] - TEST["alone"]["flair_only_dice"] == pytest.approx(0.05, abs=0.005)
