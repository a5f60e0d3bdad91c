"""The models of evaluations and summaries: whole, strict, and as the files have it."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from brainseg.errors import DataError, IntegrityError
from brainseg.evaluation import results
from brainseg.evaluation.results import CrossValidationSummary, Evaluation, ExternalEvaluation, Summary
from brainseg.inference.postprocessing import Rule
from tests.support import run_files

ROOT = Path(__file__).parents[2]
FILES = {
    "metrics/evaluation.json": Evaluation,
    "metrics/summary.json": Summary,
    "metrics/cross_validation/summary.json": CrossValidationSummary,
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_read_is_written_to_the_byte(name):
    found = results.read(ROOT / name, FILES[name])
    assert results.text(found) == (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("change", [
    {"more": 1}, {"protocol": {"grid": "256"}}, {"test": {"volume": {"dice": {"mean": 1.2}}}}, {"val": None},
    {"test": {"calibration": None}}, {"baselines": {"flair_threshold": None}},
])  # fmt: skip
def test_an_evaluation_is_strict(change):
    with pytest.raises(ValidationError):
        Evaluation.model_validate(run_files.evaluation(**change))


def test_masks_have_no_validation_no_calibration_and_no_rule_for_flair():
    content = run_files.evaluation()
    del content["val"], content["baselines"]["flair_threshold"], content["protocol"]["weights_sha256"]
    del content["test"]["alone"], content["test"]["calibration"]
    found = ExternalEvaluation.model_validate(content)
    assert found.model_dump(exclude_unset=True) == content
    with pytest.raises(ValidationError):
        Evaluation.model_validate(content)


def test_the_rule_of_a_model_and_of_a_baseline():
    found = Evaluation.model_validate(run_files.evaluation(protocol={"threshold": 0.4}))
    removed = found.protocol.postprocessing
    assert results.rule_of(found.protocol) == Rule(0.4, removed.min_component, removed.min_share)
    assert results.rule_of(found.baselines.flair_threshold).threshold == found.baselines.flair_threshold.threshold


@pytest.mark.parametrize(("text", "what"), [("{", "Invalid JSON"), ("{}", "volume_dice_mean: Field required")])
def test_a_damaged_file_is_named_with_its_key(text, what, tmp_path):
    path = tmp_path / "summary.json"
    with pytest.raises(DataError, match="there is no such file"):
        results.read(path, Summary)
    path.write_text(text)
    with pytest.raises(DataError, match=what) as error:
        results.read(path, Summary)
    assert error.value.problems[0].path == str(path) and "git restore" in error.value.problems[0].fix


FOLDS = "metrics/cross_validation/summary.json"


@pytest.mark.parametrize(("change", "what"), [
    ({"test": {"volume": {"dice": {"mean": 0.9471}}}}, "the sha256 of its content is"),
    ({"made_from": {"data": ["0a"]}}, "the sha256 of its content is"),
    ({results.DIGEST: "0" * 64}, "its content_sha256 says 000"),
])  # fmt: skip
def test_another_digit_in_a_summary_of_folds_is_refused(change, what, tmp_path):
    """It is in no dvc.lock."""
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(run_files.change(run_files.cross_validation(), change)))
    with pytest.raises(IntegrityError, match=what) as error:
        results.read(path, CrossValidationSummary)
    (problem,) = error.value.problems
    assert problem.path == str(path) and "git restore it" in problem.fix and "brainseg cross-validate" in problem.fix


def test_a_summary_of_folds_without_a_digest_is_an_early_one(tmp_path):
    path, content = tmp_path / "summary.json", run_files.cross_validation()
    digest = content.pop(results.DIGEST)
    path.write_text(json.dumps(content))
    results.read(path, CrossValidationSummary)
    written = json.dumps(content | {"content_sha257": digest})  # one wrong bit in the key
    with pytest.raises(IntegrityError, match="has no content_sha256, but keys of no version"):
        results.require_digest(path, written)


def test_the_digest_is_of_what_is_said_and_not_of_how(tmp_path):
    path, content = tmp_path / "summary.json", run_files.cross_validation()
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))
    found = results.read(path, CrossValidationSummary)
    assert results.seal(found) == found


def test_every_kept_summary_of_folds_has_its_digest():
    paths = [ROOT / FOLDS, *(ROOT / "metrics/experiments").glob("*/summary.json")]
    assert len(paths) > 1
    for path in paths:
        results.require_digest(path, path.read_text(encoding="utf-8"))
