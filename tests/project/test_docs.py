"""The documents: what their words say of the figures holds, their links and commands exist.

The figures themselves: tests/tools/test_figures.py.
"""

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
from tools import figure_sources

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(name for name in demo.git(ROOT, "ls-files", "*.md").splitlines() if (ROOT / name).is_file())
COMMANDS = typer.main.get_command(cli.app).commands


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


MOST_BYTES = {".png": 350_000, ".svg": 350_000, ".gif": 1_000_000}


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
            assert set(re.findall(r"[ \[](--[a-z][a-z0-9-]*)", line)) <= options | {"--help"}, line


def test_cross_validation_is_of_these_parameters():
    """Else its numbers are those of another recipe, and the README must not show them as this one's."""
    recipe = config.read_yaml(ROOT / "params.yaml")
    differ = [
        f"{block}.{name}"
        for block, values in figure_sources.read("folds", ROOT)["params"].items()
        if block not in ("render", "export")
        for name, value in values.items()
        if recipe[block][name] not in (value, "auto")  # which leaves precision and threads to the machine
    ]
    assert differ == []


def test_cross_validation_has_each_patient_once():
    patients = pd.read_csv(ROOT / "metrics/cross_validation/per_patient.csv")
    folds = figure_sources.read("folds", ROOT)
    assert patients["patient"].is_unique
    assert len(patients) == folds["protocol"]["patients"] == 110
    assert patients["dice"].mean() == pytest.approx(folds["test"]["volume"]["dice"]["mean"], abs=1e-5)


def test_the_limit_of_calibration_is_wider_than_what_a_shorter_training_moves():
    moved = figure_sources.read("spread epochs28+default_fold1", ROOT)["ece_from_tenth"]
    assert moved < gate.MAX_MORE_ECE < 2 * moved


TRIED = "docs/explanation/experiments.md"
LADDER = re.findall(r"^\| `(\w+)` \|.*$", (ROOT / TRIED).read_text(encoding="utf-8"), re.M)
FOLDS = {
    *("residual_fold0", "residual_fold1", "residual_folds"),
    *(
        "scalp25",
        "best_folds",
        "default_fold1",
        "epochs28",
        "epochs28_folds",
        "epochs40",
        "epochs40_folds",
        "mixed_folds",
        "half_folds",
        "ensemble_folds",
        "taught_folds",
        "twice_folds",
    ),
}


def test_the_ladder_has_the_rungs_that_are_kept():
    folders = {folder.name for folder in (ROOT / "metrics/experiments").iterdir() if folder.is_dir()}
    assert set(LADDER) == folders - {"former", "former_folds", "shared_noise", "unfloored_folds", "best_epoch"} - FOLDS


def test_the_summary_of_what_was_tried_is_of_its_tables():
    for run, row in figure_sources.read("tried", ROOT).items():
        dice = revision.scores(f"metrics/experiments/{run}", ROOT).patients["dice"]
        assert [row["patients"], row["dice_mean"]] == [len(dice), pytest.approx(dice.mean(), abs=1e-5)]


@pytest.mark.parametrize("rung", LADDER)
def test_the_figures_of_a_rung_are_its_own(rung):
    """Mean, median, difference and verdict, those of the run in its first cell and of the one that it stands beside."""
    (line,) = re.findall(rf"^\| `{rung}` \|.*$", (ROOT / TRIED).read_text(encoding="utf-8"), re.M)
    cells = [cell.strip(" `") for cell in line.split("|")]
    sources = [f"scores {rung}"] * 2 + ([f"compare {cells[5]} {rung}"] * 2 if cells[5] else [])
    assert re.findall(r"<!-- (.*?):", line) == sources


@pytest.mark.parametrize(
    ("compared", "metric", "verdict"),
    [
        ("full gain", "dice", comparison.BETTER),
        ("gain level", "dice", comparison.NOT_SIGNIFICANT),
        ("full level", "dice", comparison.NOT_SIGNIFICANT),
        ("noise long", "dice", comparison.BETTER),
        ("whole long", "dice", comparison.BETTER),
        ("whole residual", "dice", comparison.BETTER),
        ("plain attention", "dice", comparison.NOT_SIGNIFICANT),
        ("plain volume", "dice", comparison.NOT_SIGNIFICANT),
        ("inner_scalp inner_patient", "dice", comparison.BETTER),
        ("inner_scalp inner_mix", "dice", comparison.BETTER),
        ("inner_scalp inner_image", "dice", comparison.WORSE),
        ("inner_half inner_base", "dice", comparison.NOT_SIGNIFICANT),
        ("inner_base inner_alone", "dice", comparison.NOT_SIGNIFICANT),
        ("epochs40 scalp25", "dice", comparison.NOT_SIGNIFICANT),
        ("epochs40 scalp25", "stripped_dice", comparison.BETTER),
        ("epochs28_folds epochs40_folds", "dice", comparison.NOT_SIGNIFICANT),
        ("epochs40_folds residual_folds", "dice", comparison.BETTER),
    ],
)
def test_verdicts_in_sentences_about_what_was_tried(compared, metric, verdict):
    assert figure_sources.read(f"compare {compared}", ROOT)[metric]["verdict"] == verdict


def test_every_run_that_is_kept_has_its_row_in_the_summary():
    kept = {folder.name for folder in (ROOT / "metrics/experiments").iterdir() if folder.is_dir()}
    rows = (ROOT / "metrics/experiments/summary.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(kept) == [row.split(",")[0] for row in rows]


def test_the_recipe_best_is_the_one_that_was_measured():
    """Else its numbers are those of another; the engine is the machine's."""
    params = config.merge(config.read_yaml(ROOT / "params.yaml"), config.read_yaml(ROOT / "recipes/best.yaml"))
    made_with = figure_sources.read("best_folds", ROOT)["params"]
    machine = {"engine": None, "precision": None, "threads": None}
    for block in ("network", "augmentation", "train"):
        later = config.list_defaults(block)[block]  # what the run did, which was made before there was such a parameter
        assert later | made_with[block] | machine == params[block] | machine


def test_the_model_card_knows_how_many_patients_the_recipe_was_tried_on():
    folders = "metrics/cross_validation", "metrics"
    assert tuple(len(revision.scores(folder, ROOT).patients) for folder in folders) == card_words.TRIED


def test_the_patients_that_fail_are_the_worst_out_of_fold():
    patients = pd.read_csv(ROOT / "metrics/cross_validation/per_patient.csv").nsmallest(12, "dice")
    named = [name for name in rows(TRIED) if re.fullmatch(r"[A-Z]{2}_\w{4}", name)]
    assert named[::-1] == [patient[5:12] for patient in patients["patient"]]


def test_every_module_has_a_room_on_the_map():
    text = (ROOT / "docs/project/maintaining.md").read_text(encoding="utf-8").partition("## Pins")[0]
    modules = {path.stem for path in (ROOT / "src/brainseg").rglob("*.py")} - {"__init__"}
    assert modules - set(re.findall(r"`(\w+)`", text)) == set()
