"""Numbers in prose are those of the committed run."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from brainseg import config
from brainseg.experiments import comparison, revision
from brainseg.inference import onnx_session
from brainseg.reporting import card_words
from brainseg.tracking import gate

ROOT = Path(__file__).parents[2]
REPORT = json.loads((ROOT / "metrics/evaluation.json").read_text(encoding="utf-8"))
TEST = REPORT["test"]
OUT_OF_FOLD = json.loads((ROOT / "metrics/cross_validation/summary.json").read_text(encoding="utf-8"))
SLICES = pd.read_csv(ROOT / "metrics/per_slice.csv").query("subset == 'test'")


def rows(name: str) -> dict[str, list[str]]:
    """First cell → the others, of every table in a Markdown file; of rows with one name the first."""
    lines = re.findall(r"^\|(.+)\|$", (ROOT / name).read_text(encoding="utf-8"), re.M)
    cells = [[cell.strip(" *") for cell in line.split("|")] for line in lines]
    return {first: rest for first, *rest in reversed(cells)}


def prose(name: str) -> str:
    """A text with its lines joined."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


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


def test_cross_validation_in_the_readme():
    table, test = rows("README.md"), OUT_OF_FOLD["test"]
    for name, block in (
        ("volume Dice, all 110 patients", test["volume"]["dice"]),
        ("volume IoU, all 110 patients", test["volume"]["iou"]),
        ("Dice of slices with tumour, all 110 patients", test["slice"]["dice_tumour"]),
    ):
        assert table[name] == [interval(block), f"{block['median']:.3f}"], name
    detection = test["detection"]
    for name, value in (
        ("slices with tumour where any is marked, all 110 patients", detection["slice_sensitivity"]),
        ("slices without tumour where any is marked, all 110 patients", detection["slice_false_positive_rate"]),
    ):
        assert table[name][0] == f"{value:.3f}", name
    folds = [fold["volume_dice"]["mean"] for fold in OUT_OF_FOLD["folds"]]
    text = prose("README.md")
    assert f"The five folds: {', '.join(f'{mean:.3f}' for mean in folds)}." in text
    for name, group in test["by_institution"].items():
        assert f"{name} {group['dice']:.3f} ({group['n']})" in text


def test_cross_validation_is_of_these_parameters():
    """Else its numbers are those of another recipe, and the README must not show them as this one's."""
    recipe = config.read_yaml(ROOT / "params.yaml")
    differ = [
        f"{block}.{name}"
        for block, values in OUT_OF_FOLD["params"].items()
        if block not in ("render", "export")
        for name, value in values.items()
        if recipe[block][name] not in (value, "auto")  # which leaves precision and threads to the machine
    ]
    assert differ == []


def test_cross_validation_has_each_patient_once():
    patients = pd.read_csv(ROOT / "metrics/cross_validation/per_patient.csv")
    assert patients["patient"].is_unique
    assert len(patients) == OUT_OF_FOLD["protocol"]["patients"] == 110
    assert patients["dice"].mean() == pytest.approx(OUT_OF_FOLD["test"]["volume"]["dice"]["mean"], abs=1e-5)


def test_sizes_in_the_model_card():
    text = prose("docs/model-card.md")
    test, out_of_fold = TEST["by_size"], OUT_OF_FOLD["test"]
    sizes = {size: block["dice"] for size, block in out_of_fold["by_size"].items()}
    assert min(sizes, key=sizes.get) == "small"
    assert f"(mean volume Dice {sizes['small']:.3f} against {sizes['large']:.3f} for the largest third)" in text
    assert f"institution CS ({out_of_fold['by_institution']['CS']['dice']:.3f})" in text
    assert f"({test['large']['dice']:.3f} for the largest third, {test['small']['dice']:.3f} for the smallest)" in text
    loss = out_of_fold["volume"]["dice"]["mean"] - out_of_fold["alone"]["flair_only_dice"]
    assert f"it loses {loss:.2f} out of fold" in text


def test_the_limit_of_calibration_in_the_registry():
    def error(folder):
        report = json.loads((ROOT / folder / "evaluation.json").read_text(encoding="utf-8"))
        return report["test"]["calibration"]["ece_from_tenth"]

    folds = [error(folder) for folder in ("metrics/experiments/epochs28", "metrics/experiments/default_fold1")]
    recipes = ("epochs28", "former", "shared_noise", "best_epoch", "residual_fold0")
    recipes = [error(f"metrics/experiments/{name}") for name in recipes]
    moved, spread = max(folds) - min(folds), max(recipes) - min(recipes)
    text = prose("docs/registry.md")
    others = [error(f"metrics/experiments/residual_fold{fold}") for fold in (0, 1)]
    assert f"that error moved by {moved:.3f} (28 epochs) and {max(others) - min(others):.3f} (residual blocks)" in text
    assert f"between recipes of full length on one split by {spread:.3f}" in text
    limits = onnx_session.MAX_DIFFERENCE, onnx_session.MAX_DICE_DIFFERENCE["float32"], gate.MAX_MORE_ECE
    assert limits == (1e-4, 0.0005, 0.02) and moved < gate.MAX_MORE_ECE < 2 * moved
    for words in ("at most 1e-4", "at most 0.0005", "at most 0.02 above"):
        assert words in text


LADDER = {first.strip("`"): rest for first, rest in rows("docs/experiments.md").items() if first.startswith("`")}


def kept(rung: str) -> comparison.Scores:
    return revision.scores(f"metrics/experiments/{rung}", ROOT)


FOLDS = {
    *("residual_fold0", "residual_fold1", "residual_folds"),
    *("best_folds", "default_fold1", "epochs28", "epochs28_folds"),
}


def test_the_ladder_has_the_rungs_that_are_kept():
    folders = {folder.name for folder in (ROOT / "metrics/experiments").iterdir()}
    assert set(LADDER) == folders - {"former", "former_folds", "shared_noise", "unfloored_folds", "best_epoch"} - FOLDS


def test_full_length_in_the_experiments():
    """The former default, what it scored with the trials' augmentation, and the present one; fold 0 and out of fold."""
    table, text = rows("docs/experiments.md"), prose("docs/experiments.md")
    for name, folder in (
        ("the former default: whole slices, half of the resolution, `full`", "metrics/experiments/former"),
        ("the same, augmented as the first trials are (commit `0f8c1a6`)", "metrics/experiments/shared_noise"),
        ("the same with a floor, last epoch (commit `ad7707c`; `epochs28`)", "metrics/experiments/epochs28"),
        ("the default", "metrics"),
        ("28 epochs with `train.keep: best`, epoch 12", "metrics/experiments/best_epoch"),
    ):
        report = json.loads((ROOT / folder / "evaluation.json").read_text(encoding="utf-8"))
        dice, val = report["test"]["volume"]["dice"], report["val"]["volume"]["dice"]
        assert table[name][1:] == [f"{value:.3f}" for value in (val["mean"], dice["mean"], dice["median"])]
    assert f"Augmented so: {difference(kept('former'), kept('shared_noise'))}" in text


def difference(a: comparison.Scores, b: comparison.Scores) -> str:
    found = comparison.compare(a, b).differences[0]
    return f"{found.verdict}, {found.mean:+.3f} [{found.lo:+.3f}, {found.hi:+.3f}]"


def test_residual_blocks_on_two_folds():
    table, text = rows("docs/experiments.md"), prose("docs/experiments.md")
    pairs = ("epochs28", "residual_fold0"), ("default_fold1", "residual_fold1")
    sides = [[kept(name) for name in pair] for pair in pairs]
    for name, folder in (
        ("fold 1: 28 epochs (commit `ad7707c`)", "default_fold1"),
        ("fold 1: residual blocks", "residual_fold1"),
    ):
        report = json.loads((ROOT / f"metrics/experiments/{folder}/evaluation.json").read_text(encoding="utf-8"))
        dice, val = report["test"]["volume"]["dice"], report["val"]["volume"]["dice"]
        assert table[name][1:] == [f"{value:.3f}" for value in (val["mean"], dice["mean"], dice["median"])]
    default, residual = (pd.concat([pair[i].patients.set_index("patient")["dice"] for pair in sides]) for i in (0, 1))
    found = comparison.difference(default, residual)
    assert found.verdict == "better" and found.p < 0.001 and found.n == 44
    words = f"mean {residual.mean():.3f} where that has {default.mean():.3f}, median {residual.median():.3f} and"
    assert f"{words} {default.median():.3f}; {found.wins} patients better, {found.losses} worse" in text


def test_out_of_fold_in_the_experiments():
    table, now = rows("docs/experiments.md"), revision.scores("metrics/cross_validation", ROOT)
    for name, scores in (
        ("the former default (commit `97c759f`)", kept("former_folds")),
        ("no floor under `gain`, best epoch (commit `cce0c01`; `unfloored_folds`)", kept("unfloored_folds")),
        ("28 epochs (commit `ad7707c`; `epochs28_folds`)", kept("epochs28_folds")),
        ("residual blocks (commit `b6cb486`; `residual_folds`)", kept("residual_folds")),
        ("the recipe `best` (`best_folds`, on a GPU: [gpu.md](gpu.md#measured))", kept("best_folds")),
        ("the default, out of fold", now),
    ):
        dice = scores.patients["dice"]
        words = "" if scores is now else difference(scores, now)
        assert table[name] == [f"{dice.mean():.3f}", f"{dice.median():.3f}", words]
    best = kept("best_folds").patients["dice"]
    words = f"out of fold, all 110: {best.mean():.3f}, median {best.median():.3f}, where the default has"
    default = now.patients["dice"]
    assert f"{words} {default.mean():.3f} and {default.median():.3f}" in prose("README.md")


def test_the_recipe_best_fold_by_fold():
    table = rows("docs/experiments.md")
    summary = json.loads((ROOT / "metrics/experiments/best_folds/summary.json").read_text(encoding="utf-8"))
    for name, fold in zip(("the recipe `best`: residual blocks, half of the resolution", "fold 1: the recipe `best`"),
                          summary["folds"], strict=False):  # fmt: skip
        dice = fold["volume_dice"]
        expected = fold["val_volume_dice_mean"], dice["mean"], dice["median"]
        assert table[name][1:] == [f"{value:.3f}" for value in expected]
    assert f"volume Dice {interval(summary['test']['volume']['dice'])}" in prose("docs/gpu.md")


def test_the_recipe_best_is_the_one_that_was_measured():
    """Else its numbers are those of another; the engine is the machine's."""
    summary = json.loads((ROOT / "metrics/experiments/best_folds/summary.json").read_text(encoding="utf-8"))
    params = revision.merged(config.read_yaml(ROOT / "params.yaml"), config.read_yaml(ROOT / "recipes/best.yaml"))
    made_with = summary["params"]
    machine = {"engine": None, "precision": None, "threads": None}
    for block in ("network", "augmentation", "train"):
        assert made_with[block] | machine == params[block] | machine


def test_what_the_recipe_best_does_to_single_patients():
    text = prose("docs/experiments.md")
    scores = [revision.scores("metrics/cross_validation", ROOT), kept("residual_folds"), kept("best_folds")]
    default, residual, best = (score.patients.set_index("patient")["dice"] for score in scores)
    found, other = comparison.difference(default, best), comparison.difference(residual, best)
    assert f"110 patients {found.wins} score higher with it than with the default and {found.losses} lower" in text
    assert f"{difference(*scores[1:])}, though {other.wins} patients score higher and {other.losses} lower" in text
    assert found.p < 0.001 and other.p < 0.001
    fallen = (best - residual).idxmin()
    assert f"{fallen[5:12]}, falls from {residual[fallen]:.3f} to {best[fallen]:.3f}" in text
    others = residual.index != fallen
    assert comparison.difference(residual[others], best[others]).verdict == "better"
    sides = [ROOT / "metrics" / name / "summary.json" for name in ("experiments/best_folds", "cross_validation")]
    a, b = (json.loads(path.read_text(encoding="utf-8"))["test"] for path in sides)
    slices = [each["slice"]["dice_tumour"]["mean"] for each in (a, b)]
    assert "mean of {:.3f} (the default: {:.3f})".format(*slices) in text
    flair = [each["alone"]["flair_only_dice"] for each in (a, b)]
    assert "FLAIR alone {:.3f} ({:.3f})".format(*flair) in text


def test_out_of_fold_without_the_patients_that_the_recipe_was_chosen_on():
    chosen_on = set(kept("long").patients["patient"])
    patients = pd.read_csv(ROOT / "metrics/cross_validation/per_patient.csv")
    others = patients[~patients["patient"].isin(chosen_on)]["dice"]
    on_test = sum(patient in chosen_on for patient in revision.scores("metrics", ROOT).patients["patient"])
    text = prose("README.md")
    words = f"the other {len(others)} have a mean of {others.mean():.3f} and a median of {others.median():.3f}"
    assert words in text and f"{on_test} of these 22" in text
    tried, tested = card_words.TRIED
    assert (tried, tested) == (len(patients), len(revision.scores("metrics", ROOT).patients))
    words = f"scored {len(chosen_on)} of these {tried} patients, {on_test} of the {tested} test patients"
    assert words in card_words.RECIPE


@pytest.mark.parametrize("rung", LADDER)
def test_rungs_of_the_ladder(rung):
    _, mean, median, beside, difference, verdict = LADDER[rung]
    dice = kept(rung).patients["dice"]
    assert [mean, median] == [f"{dice.mean():.3f}", f"{dice.median():.3f}"]
    if beside:
        found = comparison.compare(kept(beside.strip("`")), kept(rung)).differences[0]
        assert difference == f"{found.mean:+.3f} [{found.lo:+.3f}, {found.hi:+.3f}]"
        assert verdict == found.verdict


def test_the_patients_that_fail_are_the_worst_out_of_fold():
    patients = pd.read_csv(ROOT / "metrics/cross_validation/per_patient.csv").nsmallest(12, "dice")
    table = rows("docs/experiments.md")
    named = {name: cells for name, cells in table.items() if re.fullmatch(r"[A-Z]{2}_\w{4}", name)}
    assert list(named)[::-1] == [patient[5:12] for patient in patients["patient"]]
    for name, worst in zip(reversed(named), patients.itertuples(), strict=True):
        scores = [f"{score:.2f}" for score in (worst.dice, worst.precision, worst.recall)]
        assert named[name][:4] == [*scores, str(worst.tumour_slices)]


def test_the_patients_that_a_first_try_failed():
    folders = "metrics/cross_validation", "metrics/experiments/best_folds"
    tables = [pd.read_csv(ROOT / folder / "per_patient.csv").set_index("patient")["dice"] for folder in folders]
    named = {name: cells for name, cells in rows("docs/experiments.md").items() if name.startswith("TCGA_")}
    assert len(named) == 3
    for name, cells in named.items():
        found = [scores[scores.index.str.startswith(name)] for scores in tables]
        assert cells[1:3] == [f"{one.item():.2f}" for one in found]


def test_every_module_has_a_room_on_the_map():
    text = (ROOT / "docs/maintaining.md").read_text(encoding="utf-8").partition("## Pins")[0]
    modules = {path.stem for path in (ROOT / "src/brainseg").rglob("*.py")} - {"__init__"}
    assert modules - set(re.findall(r"`(\w+)`", text)) == set()


def test_how_near_the_exported_files_are_in_the_readme():
    found = json.loads((ROOT / "metrics/export.json").read_text(encoding="utf-8"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    whole, small = found["float32"], found["int8"]
    assert f"by at most {whole['max_abs_difference']:.1e}, its" in text
    assert f"its validation Dice by {whole['dice_difference']:+.5f} |" in text
    assert f"validation Dice differs by {small['dice_difference']:+.5f} |" in text


def test_speed_on_the_page_of_machines(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import results

    assert results.table() in (ROOT / "docs/machines.md").read_text(encoding="utf-8")
