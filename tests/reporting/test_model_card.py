"""The model card agrees with the numbers for every source, and no text of the data becomes markup."""

import copy
import json
import re
from pathlib import Path

import pytest

from brainseg.data import inputs
from brainseg.errors import DataError, IntegrityError
from brainseg.evaluation.results import CrossValidationSummary, Evaluation
from brainseg.export import metadata
from brainseg.models.manifest import Manifest
from brainseg.reporting import card_file, model_card
from tests.support import run_files
from tests.support.locked import released_manifest

ROOT = Path(__file__).parents[2]
EVALUATION = json.loads((ROOT / "metrics/evaluation.json").read_text(encoding="utf-8"))
OUT_OF_FOLD = json.loads((ROOT / "metrics/cross_validation/summary.json").read_text(encoding="utf-8"))
MANIFEST = Manifest.model_validate(released_manifest(ROOT))


@pytest.fixture
def facts():
    """The facts of the released model, which a test may change."""
    return model_card.collect_facts(MANIFEST, Evaluation.model_validate(EVALUATION)).model_dump(exclude_unset=True)


@pytest.fixture
def out_of_fold():
    return copy.deepcopy(OUT_OF_FOLD)


def read(facts, out_of_fold=None):
    folds = CrossValidationSummary.model_validate(out_of_fold) if out_of_fold else None
    return model_card.ModelFacts.model_validate(facts), folds


def markdown(facts, out_of_fold=None):
    return model_card.render_markdown(*read(facts, out_of_fold))


def section(facts, title, out_of_fold=None):
    (found,) = [each for each in model_card.sections(*read(facts, out_of_fold)) if each["title"] == title]
    return found


def text(facts, title, out_of_fold=None):
    return " ".join(section(facts, title, out_of_fold)["text"])


def cells(facts, title, out_of_fold=None):
    """First cell of a section's table -> the others."""
    return {first: rest for first, *rest in section(facts, title, out_of_fold)["table"]["rows"]}


def test_the_committed_card_is_of_the_committed_run(facts):
    """If not: run brainseg card."""
    written = (ROOT / card_file.CARD).read_text(encoding="utf-8")
    assert written == model_card.render_document(*read(facts, OUT_OF_FOLD))


def test_what_the_exported_model_carries_is_enough_for_the_card(facts):
    """The facts are a part of what the export stage writes."""
    exported = metadata.build_metadata(MANIFEST, Evaluation.model_validate(EVALUATION), "float32")
    exported["rule"].setdefault("skew", 0.0)  # one of 0 is not written
    assert {name: exported[name] for name in facts} == facts
    assert markdown(facts).startswith("# Model card: brainseg residual U-Net\n")
    rule = facts["evaluation"]["protocol"]
    assert facts["rule"]["threshold"] == rule["threshold"]
    assert {name: facts["rule"][name] for name in rule["postprocessing"]} == rule["postprocessing"]
    assert facts["rule"]["mirror"] == (rule["tta"] != "none")


def test_the_markdown_holds_all_of_the_sections(facts, out_of_fold):
    written = markdown(facts, out_of_fold)
    for part in model_card.sections(*read(facts, out_of_fold)):
        assert f"\n## {part['title']}\n" in written
        assert all(paragraph in written for paragraph in part["text"])
        for row in part["table"]["rows"] if part["table"] else []:
            assert len(row) == len(part["table"]["head"])
            assert f"\n| {' | '.join(row)} |\n" in written


def test_numbers_are_those_of_the_evaluation(facts):
    test = facts["evaluation"]["test"]
    test["volume"]["dice"] = {"mean": 0.7123, "median": 0.7987, "lo": 0.6504, "hi": 0.7601, "n": 22, "undefined": 0}
    test["slice"]["hd95"] |= {"mean": 8.25, "median": 5.04, "lo": None, "hi": None}
    test["detection"]["slice_sensitivity"] = None
    test["alone"]["flair_only_dice"] = 0.5
    test["by_institution"] = {"AA": {"n": 1, "dice": 0.4444, "lo": None, "hi": None}}
    table = cells(facts, "Numbers")
    assert table["volume Dice (per patient, all slices together)"] == ["0.712 [0.650, 0.760]", "0.799"]
    assert table["95th percentile Hausdorff distance of those slices, pixels"] == ["8.2", "5.0"]
    assert table["slices with tumour where any is marked"] == ["undefined", ""]
    assert table["volume Dice, given FLAIR alone"] == ["0.500", ""]
    assert "it loses 0.21 on the test patients" in text(facts, "Where it fails")
    assert cells(facts, "By institution") == {"AA": ["1", "0.444"]}
    assert "institution" not in text(facts, "Where it fails")  # one alone is not the worst
    test["slice"]["unit"] = "mm"
    assert "95th percentile Hausdorff distance of those slices, mm" in cells(facts, "Numbers")


def test_the_card_says_on_how_many_devices_it_was_trained(facts):
    facts["model"]["training"]["devices"] = 4
    assert "device cpu (4 of them), precision" in markdown(facts)


def test_where_it_fails_is_taken_from_most_patients(facts, out_of_fold):
    sizes, here = out_of_fold["test"]["by_size"], facts["evaluation"]["test"]["by_size"]
    sizes["small"]["dice"], sizes["medium"]["dice"], sizes["large"]["dice"] = 0.9, 0.8, 0.7
    here["small"]["dice"], here["large"]["dice"] = 0.95, 0.55
    out_of_fold["test"]["by_institution"]["HT"]["dice"] = 0.321
    out_of_fold["test"]["by_institution"]["other"]["dice"] = 0.1  # no single institution
    said = text(facts, "Where it fails", out_of_fold)
    words = "with the largest tumours scores lowest (mean volume Dice 0.700 against 0.900 for the smallest third)"
    assert f"Out of fold the third of the 110 patients {words}, and institution HT (0.321)." in said
    assert "it is the same (0.950 for the smallest third, 0.550 for the largest)" in said
    here["small"]["dice"] = 0.5
    words = "it is the other way round (0.500 for the smallest third, 0.550 for the largest)"
    assert words in text(facts, "Where it fails", out_of_fold)
    assert "On the test patients the third of the 22 patients" in text(facts, "Where it fails")


@pytest.mark.parametrize("change", [
    ("network", "filters", 24), ("train", "epochs", 3), ("augmentation", "noise", 0.5), ("preprocess", "size", 128),
])  # fmt: skip
def test_folds_of_another_recipe_are_left_out(change, facts, out_of_fold):
    assert "Out of fold" in markdown(facts, out_of_fold)
    block, key, value = change
    out_of_fold["params"][block][key] = value
    assert markdown(facts, out_of_fold) == markdown(facts)
    assert "out of fold" not in markdown(facts).lower()


def test_folds_of_several_networks_are_not_those_of_one(facts, out_of_fold):
    out_of_fold["params"]["ensemble"] = {"members": ["cv-a-0"], "params": [{}], "brain": {}}
    assert markdown(facts, out_of_fold) == markdown(facts)


@pytest.mark.parametrize("key", ["source", "unit", "grid", "tta", "patients", "slices"])
def test_folds_of_another_protocol_are_left_out(key, facts, out_of_fold):
    out_of_fold["protocol"][key] = {"source": "folder", "unit": "institution", "tta": "none"}.get(key, 1)
    assert markdown(facts, out_of_fold) == markdown(facts)


def test_trials_are_mentioned_only_with_their_own_patients(facts, out_of_fold):
    assert "in trials that scored these patients too" in text(facts, "Data and protocol", out_of_fold)
    facts["model"]["protocol"]["patients"] |= {"train": 69, "test": 30}
    assert "in trials" not in text(facts, "Data and protocol", out_of_fold)


def test_a_card_of_phantoms_mentions_no_patients(facts):
    mark = "phantom data: drawn by the program, not patients"
    facts["model"]["protocol"]["source"] = facts["evaluation"]["protocol"]["source"] = "phantom"
    facts["marks"] = [mark]
    first, *_ = model_card.sections(*read(facts))
    assert first == {"title": "Read this first", "text": [f"P{mark[1:]}."], "table": None}
    written = markdown(facts)
    assert "means nothing" in written and "no people" in written
    assert not re.search("Buda|CC BY|TCIA|five institutions", written)


def test_a_card_of_own_images_claims_nothing_of_the_public_ones(facts):
    facts["model"]["protocol"]["source"] = "folder"
    facts["model"]["contract"]["channels"] = ["channel 0"]
    written = markdown(facts)
    assert not re.search("Buda|CC BY|TCIA|five institutions|gliomas|missing contrast", written)


def test_what_is_removed_is_told_of_volumes_and_of_single_slices(facts):
    facts["rule"] |= {"min_component": 200, "min_share": 0.1}
    told = cells(facts, "The model")["from probability to outline"][0]
    assert "under 200 voxels or 10 % of the largest are removed from a volume, none from a slice alone" in told
    facts["rule"] |= {"min_component": 0, "min_share": 0.0}
    assert cells(facts, "The model")["from probability to outline"][0].endswith("; nothing is removed")


@pytest.mark.parametrize(("source", "told"), [("kaggle", True), ("folder", True), ("phantom", False)])
def test_scans_without_scalp_are_told_where_heads_were_trained_on(facts, source, told):
    facts["model"]["protocol"]["source"] = source
    assert ("scalp" in text(facts, "What it does not know")) == told


def test_a_model_that_learned_without_scalp_too_says_so(facts):
    augmentation = facts["model"]["training"]["parameters"]["augmentation"]
    augmentation["scalp_dropout"] = 0.0
    told = text(facts, "What it does not know")
    assert "whole heads. On scans without scalp (skull-stripped) it may miss lesions" in told
    augmentation["scalp_dropout"] = 0.25
    told = text(facts, "What it does not know")
    assert "whole heads and, in 25 % of its samples, from brains without scalp." in told and "may miss" not in told


def test_few_patients_leave_it_undecided(facts):
    test = facts["evaluation"]["test"]
    test["by_size"] = {
        "small": {"up_to": 5, "n": 1, "dice": None, "lo": None, "hi": None},
        "large": {"up_to": 9, "n": 1, "dice": 0.5, "lo": None, "hi": None},
    }
    test["alone"]["flair_only_dice"] = test["volume"]["dice"]["mean"] = None
    assert text(facts, "Where it fails") == "There are too few patients to tell."
    assert cells(facts, "By size of the tumour") == {
        "small": ["1 (up to 5 pixels)", "undefined"],
        "large": ["1 (up to 9 pixels)", "0.500"],
    }


@pytest.mark.parametrize(
    "name", ["a|b", "<script>alert(1)</script>", "*a*", "[a](javascript:b)", "`a`", "a\n# b", "\\|"]
)
def test_no_name_becomes_markup(name, facts):
    facts["evaluation"]["test"]["by_institution"][name] = {"n": 2, "dice": 0.5, "lo": None, "hi": None}
    (line,) = [line for line in markdown(facts).splitlines() if line.endswith("| 2 | 0.500 |")]
    assert line.startswith("| ")
    cell = line.removeprefix("| ").removesuffix(" | 2 | 0.500 |")
    assert not re.search(r"(?<!\\)(\\\\)*[|<*`]", cell) and "](" not in cell
    assert cells(facts, "By institution")[name]  # a page shows it as it is


@pytest.fixture
def project(tmp_path, facts):
    """A folder in which train and evaluate have run."""
    files = {
        "models/unet.json": released_manifest(ROOT),
        "metrics/evaluation.json": EVALUATION,
        "metrics/cross_validation/summary.json": OUT_OF_FOLD,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


def test_the_command_writes_the_committed_card(project):
    out = project / "card.md"
    assert str(out) in card_file.write(out, project)
    assert out.read_bytes() == (ROOT / card_file.CARD).read_bytes()


def test_the_command_says_what_it_leaves_out(project, out_of_fold):
    out_of_fold["params"]["train"]["seed"] = 99
    (project / card_file.OUT_OF_FOLD).write_text(json.dumps(run_files.sealed(out_of_fold)))
    assert "was left out" in card_file.write(project / "card.md", project)
    (project / card_file.OUT_OF_FOLD).unlink()
    assert "left out" not in card_file.write(project / "card.md", project)


@pytest.mark.parametrize(("made", "read", "told"), [
    ("", "", True), ("0", "0", False), ("0", "", False), ("", "0", False),
])  # fmt: skip
def test_folds_of_other_data_are_left_out(made, read, told, project, out_of_fold):
    """Masks are corrected, and as many patients and slices as before: prepared again, then trained on, or either."""
    images, masks, slices = out_of_fold["made_from"]["data"]
    paths = [f"data/processed/{name}" for name in ("images.npy", "masks.npy", "slices.csv")]
    outs, deps = (
        [{"path": path, "md5": md5} for path, md5 in zip(paths, (images, changed or masks, slices), strict=True)]
        for changed in (made, read)
    )
    (project / "dvc.lock").write_text(json.dumps({"stages": {"preprocess": {"outs": outs}, "train": {"deps": deps}}}))
    said = card_file.write(project / "card.md", project)
    assert ("left out" not in said) == ("Out of fold" in (project / "card.md").read_text(encoding="utf-8")) == told


def test_a_cross_validation_that_was_edited_makes_no_card(project, out_of_fold):
    path = project / card_file.OUT_OF_FOLD
    out_of_fold["test"]["volume"]["dice"]["mean"] = 0.9471
    path.write_text(json.dumps(out_of_fold))
    with pytest.raises(IntegrityError, match="the sha256 of its content is") as error:
        card_file.write(project / "card.md", project)
    assert error.value.problems[0].path == str(path) and not (project / "card.md").exists()


@pytest.mark.parametrize("name", [card_file.MANIFEST, card_file.EVALUATION])
def test_a_file_that_no_stage_made_makes_no_card(project, name):
    outs = [
        {"path": str(path), "md5": inputs.md5(project / path)} for path in (card_file.MANIFEST, card_file.EVALUATION)
    ]
    (project / "dvc.lock").write_text(json.dumps({"stages": {"all": {"outs": outs}}}))
    card_file.write(project / "card.md", project)
    (project / name).write_text((project / name).read_text().replace("256", "255", 1))
    with pytest.raises(IntegrityError, match=r"dvc\.lock says"):
        card_file.write(project / "card.md", project)


def test_numbers_of_another_model_make_no_card(project):
    path = project / card_file.EVALUATION
    path.write_text(path.read_text().replace(EVALUATION["protocol"]["weights_sha256"], "0" * 64))
    with pytest.raises(IntegrityError, match="0" * 64):
        card_file.write(project / "card.md", project)
    assert not (project / "card.md").exists()


@pytest.mark.parametrize(
    ("name", "error"), [("metrics/evaluation.json", DataError), ("models/unet.json", IntegrityError)]
)
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")])
def test_without_a_file_there_is_no_card(name, error, damage, project):
    damage(project / name)
    with pytest.raises(error, match=name):
        card_file.write(project / "card.md", project)
