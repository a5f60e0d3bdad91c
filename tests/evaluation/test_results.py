"""The models of evaluations and summaries: whole, strict, and as the files have it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from brainseg.errors import DataError
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
    assert results.rule_of(found.protocol) == Rule(0.4, found.protocol.postprocessing.min_component)
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
