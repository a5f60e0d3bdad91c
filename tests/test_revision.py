"""Reading what a revision, an experiment or the workspace scored."""

import json

import pytest

from brainseg import comparison, revision
from brainseg.errors import DataError
from tests import toy_pipeline

HEAD = "patient,institution,subset,tumour_pixels,dice,iou,precision,recall\n"
PROTOCOL = {"source": "kaggle", "unit": "patient", "grid": 256, "marks": [], "empty_rule": "undefined"}


def score(folder, p2, name=""):
    metrics = folder / "metrics" / name
    metrics.mkdir(parents=True, exist_ok=True)
    rows = "0012,NA,test,5,0.5,0.4,1,0.3\nv,X,val,9,0.1,0.1,0.1,0.1\n" + f"P2,,test,0,{p2},,,\n"
    (metrics / "per_patient.csv").write_text(HEAD + rows)
    (metrics / ("summary.json" if name else "evaluation.json")).write_text(json.dumps({"protocol": PROTOCOL}))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    repository = toy_pipeline.create(tmp_path_factory.mktemp("revision") / "toy")
    score(repository.folder, 0.5)
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "scored")
    repository.git("tag", "before")
    code, output = repository.dvc("exp", "run", "-S", "train.loss=iou", "-n", "overlap")
    assert code == 0, output
    repository.git("checkout", "--quiet", ".")
    score(repository.folder, 0.75)
    return repository.folder


def test_test_patients_alone_with_ids_as_they_are_written(toy):
    scores = revision.scores("before", toy)
    assert scores.patients["patient"].tolist() == ["0012", "P2"]
    assert scores.patients["institution"].tolist() == ["NA", ""]
    assert scores.patients["dice"].tolist() == [0.5, 0.5]
    assert scores.patients["iou"].isna().tolist() == [False, True]
    assert scores.protocol["grid"] == 256


def test_the_workspace_is_what_lies_there(toy):
    assert revision.scores("workspace", toy).patients["dice"].tolist() == [0.5, 0.75]


def test_an_experiment_is_read_by_its_name(toy):
    c = comparison.compare(revision.scores("HEAD", toy), revision.scores("overlap", toy))
    assert c.params == {"train.loss": ("dice", "iou")}
    assert c.differences[0].ties == 2


def test_patients_out_of_fold(toy):
    with pytest.raises(DataError, match=r"workspace:metrics/cross_validation/per_patient\.csv: there is no such file"):
        revision.scores("workspace", toy, cross_validation=True)
    score(toy, 0.25, "cross_validation")
    assert revision.scores("workspace", toy, cross_validation=True).patients["dice"].tolist() == [0.5, 0.25]


def test_an_unknown_revision_says_where_to_look(toy):
    with pytest.raises(DataError) as error:
        revision.scores("nope", toy)
    (line,) = error.value.lines()
    assert line.startswith("ERROR 2 nope: there is no such revision, branch or experiment. Fix: ")
    assert "dvc exp list" in line
