"""Runs with other patients: the command that makes the one that is missing, and when there is none."""

import copy

import pytest
from dvc.repo.experiments.refs import ExpRefInfo

from brainseg import config
from brainseg.errors import DataError
from brainseg.experiments import comparison, revision
from brainseg.experiments.comparing import baseline
from tests.support import toy_pipeline
from tests.support.paired_scores import scores

PARAMS = config.read_yaml(toy_pipeline.PROJECT / "params.yaml")
GENERIC = comparison.describe_one_split(None, None)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A project whose params.yaml is the real one, with an experiment ``patients40``."""
    toy = toy_pipeline.create(tmp_path_factory.mktemp("baseline") / "toy")
    (toy.folder / "params.yaml").write_bytes((toy_pipeline.PROJECT / "params.yaml").read_bytes())
    toy.git("commit", "--quiet", "--all", "--message", "the real parameters")
    head = toy.git("rev-parse", "HEAD").strip()
    toy.git("update-ref", str(ExpRefInfo(head, "patients40")), "HEAD")
    return toy.folder


def run(name, patients=22, **changes):
    """A run of so many test patients; ``changes``: of the real parameters, as split_patients=20."""
    params = copy.deepcopy(PARAMS)
    for key, value in changes.items():
        block, _, name_in_block = key.partition("_")
        params[block][name_in_block] = value
    return scores([0.5] * patients, name, params=params)


FULL = run("HEAD")
QUICK = run("quick", 4, split_patients=20, train_loss="jaccard")
NEW = "dvc exp run --temp -n patients20 -S split.patients=20"


def test_a_quick_try_gets_the_committed_run_on_its_patients(root):
    said = "compare with HEAD on the patients of quick: "
    assert baseline.suggest(FULL, QUICK, root) == f"{said}{NEW} && brainseg compare patients20 quick"
    assert baseline.suggest(QUICK, FULL, root) == f"{said}{NEW} && brainseg compare quick patients20"


def test_compare_says_it(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(DataError) as error:
        comparison.compare(FULL, QUICK, suggest=baseline.suggest)
    (line,) = error.value.lines()
    assert line.startswith(
        "ERROR 2 quick: its test patients are not those of HEAD: 18 of the 22 of HEAD are not in quick"
    )
    assert line.endswith(f"{NEW} && brainseg compare patients20 quick")


def test_it_counts_from_params_yaml_as_it_is_now(root):
    """An experiment leaves its values there, also those that the committed run does not have."""
    path = root / "params.yaml"
    text = path.read_text()
    own, split, after = text.replace("loss: bce_dice", "loss: jaccard").partition("\nsplit:")
    path.write_text(own + split + after.replace("patients: null", "patients: 20", 1))
    said = baseline.suggest(FULL, QUICK, root)
    path.write_text(text)
    assert "--temp -n patients20 -S split.patients=20 -S 'train.loss=\"bce_dice\"' && brainseg compare" in said


def test_what_the_other_run_differs_in_is_set_too(root):
    other = run("lower", train_learning_rate=0.001, render_dpi=80)
    said = baseline.suggest(other, QUICK, root)
    assert "-n patients20-lr0.001 -S split.patients=20 -S train.learning_rate=0.001 && brainseg compare" in said


def test_a_run_that_was_made_before_is_not_made_again(root, monkeypatch):
    wanted = run("any", split_patients=40)
    quick = run("quick", 8, split_patients=40, train_loss="dice")
    made = [wanted.params, wanted.params | {"train": {**wanted.params["train"], "seed": 9}}]
    monkeypatch.setattr(revision, "params", lambda read: made.pop(0))
    assert baseline.suggest(FULL, quick, root).endswith("of quick: brainseg compare patients40 quick")
    assert "dvc exp run --temp -n patients40-2 -S split.patients=40 &&" in baseline.suggest(FULL, quick, root)


def test_a_run_that_changes_nothing_but_the_patients_is_the_baseline(root):
    said = baseline.suggest(FULL, run("workspace", 4, split_patients=20), root)
    assert said == "compare other runs with workspace: apart from its patients it has the parameters of HEAD"


@pytest.mark.parametrize("other", [
    scores([0.5] * 4, "a folder", params={}),
    run("the same split of other data", 4, train_loss="dice"),
    scores([0.5] * 4, "of an old version", params={"split": {"seed": 1, "gone": 2}, "train": {"loss": "dice"}}),
    run("not allowed", 4, split_test_fold=7, train_loss="dice"),
], ids=lambda each: each.name)  # fmt: skip
def test_without_such_a_run_it_says_what_to_compare(root, other):
    assert baseline.suggest(FULL, other, root) == GENERIC
