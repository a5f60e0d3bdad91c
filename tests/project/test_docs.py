"""The documents: their tables have the numbers of the files in metrics/, their links and commands exist."""

import functools
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import typer.main

from brainseg import cli, config
from brainseg.experiments import comparison, demo, revision
from brainseg.reporting import card_words
from brainseg.tracking import gate
from tests.support.markdown import blocks, rows

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(name for name in demo.git(ROOT, "ls-files", "*.md").splitlines() if (ROOT / name).is_file())
COMMANDS = typer.main.get_command(cli.app).commands


@functools.cache
def report(folder: str) -> dict:
    """evaluation.json of one split, or summary.json of a cross-validation."""
    name = "summary.json" if (ROOT / folder / "summary.json").exists() and folder != "metrics" else "evaluation.json"
    return json.loads((ROOT / folder / name).read_text(encoding="utf-8"))


TEST, OUT_OF_FOLD = report("metrics")["test"], report("metrics/cross_validation")
KEPT = pd.read_csv(ROOT / "metrics/experiments/summary.csv", index_col="run")
SLICES = pd.read_csv(ROOT / "metrics/per_slice.csv").query("subset == 'test'")


def interval(block: dict, digits: int = 3) -> str:
    return f"{block['mean']:.{digits}f} [{block['lo']:.{digits}f}, {block['hi']:.{digits}f}]"


def code(name: str) -> list[str]:
    """What a document shows as code: each line of a block, without its comment, and what stands between backticks."""
    text = (ROOT / name).read_text(encoding="utf-8")
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return spans + [line for block in blocks(name) for line in block]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files_and_headings(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target or path.startswith("mailto:"):
            continue
        there = (ROOT / name).parent / path if path else ROOT / name
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.M)
            assert anchor in [re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


MOST_BYTES = {".png": 350_000, ".svg": 350_000, ".gif": 1_500_000}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_pictures_exist_are_small_and_say_what_is_seen(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    written = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text)
    shown = written + [found[::-1] for found in re.findall(r'<img src="([^"]+)"[^>]* alt="([^"]*)"', text)]
    assert len(shown) == text.count("![") + text.count("<img ")
    for words, path in shown:
        picture = (ROOT / name).parent / path
        assert picture.is_file() and len(words) > 10, path
        assert picture.parent.name != "images" or picture.stat().st_size <= MOST_BYTES[picture.suffix], path


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_options_and_targets_exist(name):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for line in (part.strip() for whole in code(name) for part in whole.split("&&")):
        if found := re.match(r"make ([a-z][a-z-]*)", line):
            assert found[1] in targets, line
        if found := re.match(r"brainseg ([a-z][a-z-]*)", line):
            assert found[1] in COMMANDS, line
            options = {option for parameter in COMMANDS[found[1]].params for option in parameter.opts}
            assert set(re.findall(r"[ \[](--[a-z][a-z-]*)", line)) <= options | {"--help"}, line


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
    assert rows("docs/explanation/comparability.md")[convention][0] == f"{CONVENTIONS[convention]:.3f}"


RESULTS = "docs/explanation/results.md"


def test_results_of_the_committed_run():
    table, flair = rows(RESULTS), report("metrics")["baselines"]["flair_threshold"]
    for name, block, digits in (
        ("volume Dice** (per patient, all slices together)", TEST["volume"]["dice"], 3),
        ("volume IoU", TEST["volume"]["iou"], 3),
        ("Dice of slices with tumour", TEST["slice"]["dice_tumour"], 3),
        ("95th percentile Hausdorff distance of those slices, pixels", TEST["slice"]["hd95"], 1),
        ("baseline: threshold on FLAIR, volume Dice", flair["volume"]["dice"], 3),
    ):
        assert table[name] == [interval(block, digits), f"{block['median']:.{digits}f}"], name
    single = {
        "Dice of all pixels pooled": TEST["pooled"]["dice"],
        "slices with tumour where any is marked": TEST["detection"]["slice_sensitivity"],
        "slices without tumour where any is marked": TEST["detection"]["slice_false_positive_rate"],
        "the same model, given FLAIR alone, volume Dice": TEST["alone"]["flair_only_dice"],
    }
    assert {name: table[name][0] for name in single} == {name: f"{value:.3f}" for name, value in single.items()}


def test_results_out_of_fold():
    table, test = rows(RESULTS), OUT_OF_FOLD["test"]
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


def test_results_in_the_readme():
    """Its five rows are of the committed run and its folds; the first column says of which patients."""
    shown = {name.partition("**, each")[0]: cells for name, cells in rows("README.md").items()}
    whole = rows(RESULTS)
    for name in ("volume Dice, all 110 patients", "Dice of slices with tumour, all 110 patients",
                 "slices with tumour where any is marked, all 110 patients",
                 "slices without tumour where any is marked, all 110 patients"):  # fmt: skip
        assert [cell.strip(" *") for cell in shown[name]] == whole[name], name
    dice = TEST["volume"]["dice"]
    assert shown["volume Dice, the 22 test patients of the committed run"] == [interval(dice), f"{dice['median']:.3f}"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"score {TEST['slice']['dice_empty_as_one']['mean']:.3f} if each slice counts alone" in " ".join(
        text.split()
    )


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


def test_the_limit_of_calibration_is_wider_than_what_a_shorter_training_moves():
    errors = KEPT.loc[["epochs28", "default_fold1"], "ece_from_tenth"]
    moved = errors.max() - errors.min()
    assert moved < gate.MAX_MORE_ECE < 2 * moved


TRIED = "docs/explanation/experiments.md"
LADDER = {first.strip("`"): rest for first, rest in rows(TRIED).items() if first.startswith("`")}


@functools.cache
def kept(rung: str) -> comparison.Scores:
    return revision.scores(f"metrics/experiments/{rung}", ROOT)


FOLDS = {
    *("residual_fold0", "residual_fold1", "residual_folds"),
    *("scalp25", "best_folds", "default_fold1", "epochs28", "epochs28_folds"),
}


def test_the_ladder_has_the_rungs_that_are_kept():
    folders = {folder.name for folder in (ROOT / "metrics/experiments").iterdir() if folder.is_dir()}
    assert set(LADDER) == folders - {"former", "former_folds", "shared_noise", "unfloored_folds", "best_epoch"} - FOLDS


@pytest.mark.parametrize("rung", LADDER)
def test_rungs_of_the_ladder(rung):
    _, mean, median, beside, difference, verdict = LADDER[rung]
    dice = kept(rung).patients["dice"]
    assert [mean, median] == [f"{dice.mean():.3f}", f"{dice.median():.3f}"]
    if beside:
        found = comparison.compare(kept(beside.strip("`")), kept(rung)).differences[0]
        assert difference == f"{found.mean:+.3f} [{found.lo:+.3f}, {found.hi:+.3f}]"
        assert verdict == found.verdict


FULL_LENGTH = {
    "the former default: whole slices, half of the resolution, `full`": "former",
    "the same, augmented as the first trials are (commit `0f8c1a6`)": "shared_noise",
    "the same with a floor, last epoch (commit `ad7707c`; `epochs28`)": "epochs28",
    "28 epochs with `train.keep: best`, epoch 12": "best_epoch",
    "fold 1: 28 epochs (commit `ad7707c`)": "default_fold1",
    "fold 1: residual blocks": "residual_fold1",
    "the default with `augmentation.scalp_dropout=0.25` (`scalp25`)": "scalp25",
}


@pytest.mark.parametrize("name", FULL_LENGTH)
def test_full_length_in_the_experiments(name):
    expected = [f"{value:.3f}" for value in KEPT.loc[FULL_LENGTH[name], ["val_dice_mean", "dice_mean", "dice_median"]]]
    assert rows(TRIED)[name][1:] == expected


def test_without_scalp_in_the_experiments():
    table, scalp = rows(TRIED), report("metrics/experiments/scalp25")["test"]
    for name, of in {
        "mean, whole heads": lambda test: test["volume"]["dice"]["mean"],
        "mean, scalp removed": lambda test: test["alone"]["stripped_dice"],
        "mean, FLAIR alone": lambda test: test["alone"]["flair_only_dice"],
    }.items():
        assert table[name] == [f"{of(TEST):.3f}", f"{of(scalp):.3f}"], name
    found = comparison.compare(revision.scores("metrics", ROOT), kept("scalp25")).differences
    verdicts = {difference.metric: difference.verdict for difference in found}
    assert verdicts["dice"] == comparison.NOT_SIGNIFICANT and verdicts["stripped_dice"] == comparison.BETTER


def test_the_default_in_the_experiments():
    dice, val = TEST["volume"]["dice"], report("metrics")["val"]["volume"]["dice"]
    expected = [f"{value:.3f}" for value in (val["mean"], dice["mean"], dice["median"])]
    assert rows(TRIED)["the default"][1:] == expected


def test_the_summary_of_what_was_tried_is_of_its_tables():
    for run, row in KEPT.iterrows():
        dice = kept(run).patients["dice"]
        assert [row["patients"], row["dice_mean"]] == [len(dice), pytest.approx(dice.mean(), abs=1e-5)]


def test_out_of_fold_in_the_experiments():
    table, now = rows(TRIED), revision.scores("metrics/cross_validation", ROOT)
    for name, scores in (
        ("the former default (commit `97c759f`)", kept("former_folds")),
        ("no floor under `gain`, best epoch (commit `cce0c01`; `unfloored_folds`)", kept("unfloored_folds")),
        ("28 epochs (commit `ad7707c`; `epochs28_folds`)", kept("epochs28_folds")),
        ("residual blocks (commit `b6cb486`; `residual_folds`)", kept("residual_folds")),
        ("the recipe `best` (`best_folds`, on a GPU: [gpu.md](../how-to/gpu.md#measured))", kept("best_folds")),
        ("the default, out of fold", now),
    ):
        dice, words = scores.patients["dice"], ""
        if scores is not now:
            found = comparison.compare(scores, now).differences[0]
            words = f"{found.verdict}, {found.mean:+.3f} [{found.lo:+.3f}, {found.hi:+.3f}]"
        assert table[name] == [f"{dice.mean():.3f}", f"{dice.median():.3f}", words]


def test_the_recipe_best_fold_by_fold():
    table = rows(TRIED)
    for name, fold in zip(("the recipe `best`: residual blocks, half of the resolution", "fold 1: the recipe `best`"),
                          report("metrics/experiments/best_folds")["folds"], strict=False):  # fmt: skip
        dice = fold["volume_dice"]
        expected = fold["val_volume_dice_mean"], dice["mean"], dice["median"]
        assert table[name][1:] == [f"{value:.3f}" for value in expected]


def test_the_recipe_best_is_the_one_that_was_measured():
    """Else its numbers are those of another; the engine is the machine's."""
    params = config.merge(config.read_yaml(ROOT / "params.yaml"), config.read_yaml(ROOT / "recipes/best.yaml"))
    made_with = report("metrics/experiments/best_folds")["params"]
    machine = {"engine": None, "precision": None, "threads": None}
    for block in ("network", "augmentation", "train"):
        later = config.list_defaults(block)[block]  # what the run did, which was made before there was such a parameter
        assert later | made_with[block] | machine == params[block] | machine


def test_the_model_card_knows_how_many_patients_the_recipe_was_tried_on():
    folders = "metrics/cross_validation", "metrics"
    assert tuple(len(revision.scores(folder, ROOT).patients) for folder in folders) == card_words.TRIED


def test_the_patients_that_fail_are_the_worst_out_of_fold():
    patients = pd.read_csv(ROOT / "metrics/cross_validation/per_patient.csv").nsmallest(12, "dice")
    table = rows(TRIED)
    named = {name: cells for name, cells in table.items() if re.fullmatch(r"[A-Z]{2}_\w{4}", name)}
    assert list(named)[::-1] == [patient[5:12] for patient in patients["patient"]]
    for name, worst in zip(reversed(named), patients.itertuples(), strict=True):
        scores = [f"{score:.2f}" for score in (worst.dice, worst.precision, worst.recall)]
        assert named[name][:4] == [*scores, str(worst.tumour_slices)]


def test_the_patients_that_a_first_try_failed():
    folders = "metrics/cross_validation", "metrics/experiments/best_folds"
    tables = [pd.read_csv(ROOT / folder / "per_patient.csv").set_index("patient")["dice"] for folder in folders]
    named = {name: cells for name, cells in rows(TRIED).items() if name.startswith("TCGA_")}
    assert len(named) == 3
    for name, cells in named.items():
        found = [scores[scores.index.str.startswith(name)] for scores in tables]
        assert cells[1:3] == [f"{one.item():.2f}" for one in found]


def test_every_module_has_a_room_on_the_map():
    text = (ROOT / "docs/project/maintaining.md").read_text(encoding="utf-8").partition("## Pins")[0]
    modules = {path.stem for path in (ROOT / "src/brainseg").rglob("*.py")} - {"__init__"}
    assert modules - set(re.findall(r"`(\w+)`", text)) == set()


def test_speed_on_the_page_of_machines(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import results

    assert results.table() in (ROOT / "docs/explanation/machines.md").read_text(encoding="utf-8")
