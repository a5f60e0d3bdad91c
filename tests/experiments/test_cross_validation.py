"""Cross-validation: folds as experiments, collected so that every patient counts once."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock

from brainseg import config
from brainseg.data import inputs
from brainseg.errors import DataError, IntegrityError, MachineError, RunError
from brainseg.evaluation import results
from brainseg.experiments import cross_validation, fold_scores, revision
from brainseg.experiments.running.progress import Board
from brainseg.experiments.running.runner import Place, Seen, TrainingError
from tests.support import run_files, tiny_pipeline
from tests.support.scored_folds import FOLDS, PATIENTS, PROTOCOL, SMALL, experiments, experiments_pictured, fold_files
from tests.support.tiny_pipeline import PROJECT, TINY


def test_a_mark_of_any_fold_is_one_of_all(tmp_path, monkeypatch):
    """Initial weights may have seen the test patients of only some folds."""
    first, second = fold_files(PATIENTS[:1], 3), fold_files(PATIENTS[1:], 3)
    report = json.loads(second["metrics/evaluation.json"])
    report["protocol"]["marks"] = ["seen before"]
    experiments(monkeypatch, first, second | {"metrics/evaluation.json": json.dumps(report)})
    monkeypatch.setattr(cross_validation, "_gallery", lambda *_: None)
    cross_validation.collect(FOLDS, tmp_path)
    summary = json.loads((tmp_path / cross_validation.FOLDER / "summary.json").read_text())
    assert summary["protocol"]["marks"] == ["seen before"]


def test_every_patient_once_in_the_shape_of_a_test(tmp_path, monkeypatch):
    """A in one fold, B and C in the other: Dice 0.5, 1 and 0, as if one model had been tested on all three."""
    first, second = fold_files(PATIENTS[:1], 3), fold_files(PATIENTS[1:], 3)
    experiments(monkeypatch, first, second)
    monkeypatch.setattr(cross_validation, "_gallery", lambda *_: None)
    line = cross_validation.collect(FOLDS, tmp_path)
    assert "3 patients out of fold: volume Dice 0.500" in line
    folder = tmp_path / cross_validation.FOLDER
    table = pd.read_csv(folder / "per_patient.csv")
    assert table["patient"].tolist() == ["A", "B", "C"]
    assert table["fold"].tolist() == [0, 1, 1]
    summary = json.loads((folder / "summary.json").read_text())
    together = json.loads(fold_files(PATIENTS, 3)["metrics/evaluation.json"])["test"]
    assert summary["test"].keys() == together.keys()
    told, own = summary["calibration"], summary["test"]["calibration"]
    assert [told["temperature"], told["bias"]] == [1, 0], "as evaluate in the parameters fixes it"
    assert {name: told[name] for name in own} == own and told["ece_before"] == own["ece"]
    for block in ("volume", "slice", "pooled", "detection", "by_institution", "by_size", "alone", "calibration"):
        assert summary["test"][block] == together[block]
    assert [fold["volume_dice"]["mean"] for fold in summary["folds"]] == [0.5, 0.5]
    assert summary["protocol"]["patients"] == 3
    written = (folder / "per_patient.csv").read_bytes()
    validated = (folder / "validation.csv").read_bytes()
    assert summary["tables"] == {
        "per_patient.csv": hashlib.sha256(written).hexdigest(),
        "validation.csv": hashlib.sha256(validated).hexdigest(),
    }
    table = pd.read_csv(folder / "validation.csv")
    assert table["patient"].tolist() == ["V", "V"] and table["fold"].tolist() == [0, 1]
    assert list(summary)[-1] == results.DIGEST and run_files.sealed(summary) == summary
    assert summary["params"]["split"] == {"seed": 5}
    assert summary["overrides"] == SMALL | {"split": {"unit": "patient"}}
    assert summary["made_from"] == {
        "data": ["0a"],
        "code": {"src/brainseg/losses.py": hashlib.sha256(b"# losses").hexdigest()},
        "commands": ["python a.py"] * 4,
    }
    for name in ("patients.png", "folds.png"):
        assert (folder / name).stat().st_size > 5000


def test_some_folds_alone(tmp_path, monkeypatch):
    """Of fold 1 alone: its own patients; nobody misses the others."""
    assert [fold.number for fold in cross_validation.choose(FOLDS, [1, 1])] == [1]
    assert cross_validation.choose(FOLDS, None) == FOLDS
    with pytest.raises(DataError, match="there is no fold 7"):
        cross_validation.choose(FOLDS, [0, 7])
    experiments(monkeypatch, fold_files(PATIENTS[:1], 3), fold_files(PATIENTS[1:], 3))
    monkeypatch.setattr(cross_validation, "_gallery", lambda *_: None)
    with pytest.raises(IntegrityError, match="2 patients are tested, there are 3"):
        cross_validation.collect(FOLDS[1:], tmp_path)
    assert "2 patients out of fold" in cross_validation.collect(FOLDS[1:], tmp_path, are_all=False)
    alone = json.loads((tmp_path / cross_validation.FOLDER / "summary.json").read_text())
    assert alone["calibration"] is None, "one fold has no others"


def test_the_gallery_shows_each_patient_as_its_test_fold_outlined_it(tmp_path, monkeypatch):
    """B is right, A half right, C missed: found, false and missed pixels in the colours of the last column."""
    experiments_pictured(tmp_path, monkeypatch)
    drawn = []
    monkeypatch.setattr(cross_validation.gallery, "_sheet", lambda rows, *_: drawn.extend(rows))
    cross_validation.collect(FOLDS, tmp_path)
    assert [row.left[0] for row in drawn] == ["B", "A", "C"]
    colours = [cross_validation.gallery._rgb(c) for c in cross_validation.gallery.ERRORS]
    seen = [[(row.cells[3] == colour).all(-1).any() for colour in colours] for row in drawn]
    assert seen == [[True, False, False], [True, True, True], [False, False, True]]


def test_numbers_come_without_pictures_where_no_patient_has_a_dice(tmp_path, monkeypatch):
    experiments_pictured(tmp_path, monkeypatch)
    pick = cross_validation.gallery.pick
    nobody = lambda patients, *rest: pick(patients.assign(dice=np.nan), *rest)  # noqa: E731
    monkeypatch.setattr(cross_validation.gallery, "pick", nobody)
    assert "3 patients out of fold" in cross_validation.collect(FOLDS, tmp_path)
    assert not (tmp_path / cross_validation.FOLDER / "gallery.png").exists()


def test_numbers_come_without_pictures_where_the_cache_has_no_predictions(tmp_path, monkeypatch, capsys):
    experiments(monkeypatch, fold_files(PATIENTS[:1], 3), fold_files(PATIENTS[1:], 3))

    def fetched(path, name, root):
        raise DataError(f"{name}:{path}", "is not in DVC's cache", "run it again")

    monkeypatch.setattr(revision, "fetched", fetched)
    folder = tmp_path / cross_validation.FOLDER
    folder.mkdir(parents=True)
    (folder / "gallery.png").write_text("of other folds")
    assert "3 patients out of fold" in cross_validation.collect(FOLDS, tmp_path)
    assert "gallery.png is left out" in capsys.readouterr().out
    assert not (folder / "gallery.png").exists()


def test_keras_numbers_are_weighted_by_batches():
    parts = [{"x": 0.2, "y": None}, {"x": 0.5, "y": 0.4}]
    assert fold_scores._average_folds(parts, [2, 1]) == {"x": pytest.approx(0.3), "y": pytest.approx(0.4)}
    assert np.isnan(fold_scores._average_folds([{"x": None}], [2])["x"])


def test_a_patient_tested_twice_is_named(tmp_path, monkeypatch):
    experiments(monkeypatch, fold_files(PATIENTS[:2], 3), fold_files(PATIENTS[1:], 3))
    with pytest.raises(IntegrityError, match="B: is tested in two folds"):
        cross_validation.collect(FOLDS, tmp_path)
    assert not (tmp_path / cross_validation.FOLDER).exists()


def test_a_patient_never_tested_is_noticed(tmp_path, monkeypatch):
    experiments(monkeypatch, fold_files(PATIENTS[:1], 4), fold_files(PATIENTS[1:], 4))
    with pytest.raises(IntegrityError, match="3 patients are tested, there are 4"):
        cross_validation.collect(FOLDS, tmp_path)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A project whose data stages have run, so that the names of folds can be determined. It is no repository."""
    project = tmp_path / "project"
    for name in ("src", "stages", "recipes"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "page"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, project / name)
    tiny_pipeline.demo.override(project / "params.yaml", TINY)
    stages = {"preprocess": {"outs": [{"path": "data/processed/images.npy", "md5": "0a"}]}}
    (project / "dvc.lock").write_text(json.dumps({"stages": stages}))
    processed = project / "data/processed"
    processed.mkdir(parents=True)
    rows = [(f"P{k}", "AB"[k % 2], 1, 9) for k in range(24)]
    columns = ["patient", "institution", "slice", "tumour_pixels"]
    pd.DataFrame(rows, columns=columns).to_csv(processed / "slices.csv", index=False)
    monkeypatch.chdir(project)
    return project


def test_names_follow_what_determines_the_numbers(prepared):
    folds = cross_validation.plan({})
    assert [fold.overrides for fold in folds] == [{"split": {"test_fold": k}} for k in range(5)]
    assert len({fold.name for fold in folds}) == 5
    same = {folds[0].name, cross_validation.plan({})[0].name}
    tiny_pipeline.demo.override(prepared / "params.yaml", {"split": {"test_fold": 3}, "render": {"dpi": 60}})
    (prepared / "src/brainseg/figures.py").write_text("# draws\n")
    assert same == {cross_validation.plan({})[0].name}
    others = [cross_validation.plan({"train": {"seed": 9}})[0].name]
    tiny_pipeline.demo.override(prepared / "params.yaml", {"train": {"seed": 9}})
    assert cross_validation.plan({})[0].name == others[0]
    losses = prepared / "src/brainseg/training/losses.py"
    losses.write_text(losses.read_text() + "\n")
    others.append(cross_validation.plan({})[0].name)
    lock = prepared / "dvc.lock"
    lock.write_text(lock.read_text().replace("0a", "0b"))
    others.append(cross_validation.plan({})[0].name)
    assert len({*same, *others}) == 4


@pytest.mark.parametrize("number", [0, 4])
def test_names_follow_the_weights_that_each_fold_begins_with(prepared, monkeypatch, number):
    monkeypatch.setenv("DVC_ROOT", str(prepared))
    given = {"train": {"initial_weights": "pretrained/fold-{fold}.weights.h5"}}
    (prepared / "pretrained").mkdir()
    for fold in range(5):
        (prepared / f"pretrained/fold-{fold}.weights.h5").write_text("before")
    before = cross_validation.plan(given)[0].name
    assert before == cross_validation.plan(given)[0].name != cross_validation.plan({})[0].name
    (prepared / f"pretrained/fold-{number}.weights.h5").write_text("after")
    assert before != cross_validation.plan(given)[0].name


def test_an_institution_is_a_fold(prepared):
    overrides = cross_validation.load_overrides(None, "institution")
    assert [fold.overrides for fold in cross_validation.plan(overrides)] == [
        {"split": {"unit": "institution", "test_fold": k}} for k in range(2)
    ]


def test_inner_folds_leave_the_test_fold_alone(prepared):
    """They differ in the inner fold and share the test fold, which their name holds."""
    inner = {"split": {"inner_folds": 2, "test_fold": 3}}
    folds = cross_validation.plan(inner)
    assert [fold.overrides["split"] for fold in folds] == [{**inner["split"], "inner_fold": k} for k in range(2)]
    assert folds[0].name != cross_validation.plan({"split": {"inner_folds": 2, "test_fold": 1}})[0].name
    assert fold_scores.drop_fold({"split": folds[1].overrides["split"]}) == {"split": inner["split"]}
    assert fold_scores.drop_fold({"split": {"inner_fold": 1}}, inner_folds=2) == {"split": {}}
    assert fold_scores.drop_fold({"split": {"test_fold": 1}}) == {"split": {}}
    tiny_pipeline.demo.override(prepared / "params.yaml", inner)
    with pytest.raises(DataError, match="leaves out the patients of the test fold"):
        cross_validation.run()


@pytest.mark.parametrize(
    ("recipe", "scheme", "what"),
    [
        ("split: {unit: slice}", None, "a patient would be tested in several folds"),
        ("split: {file: mine.csv}", None, "split.file has one split"),
        ("download: {source: kaggle}", None, "changes download"),
        ("train: {subset: all}", None, "train.subset is all: no patient would be scored"),
        ("trian: {seed: 2}", None, "trian is not a parameter"),
        ("train: {sede: 2}", "patient", "train.sede is not a parameter"),
    ],
)
def test_what_a_recipe_must_not_change(prepared, recipe, scheme, what):
    (prepared / "recipes/mine.yaml").write_text(recipe)
    with pytest.raises(DataError, match=what) as error:
        cross_validation.load_overrides("mine", scheme)
    assert "recipes/mine.yaml" in str(error.value)


class Trainings:
    """A runner in place of trainings: an epoch each, but for those that ``errors`` names."""

    jobs = 2

    def __init__(self, errors):
        self.errors, self.names, self.is_over = errors, [], threading.Event()

    def run(self, training, watch):
        self.names.append(training.name)
        if training.name in self.errors:
            raise self.errors[training.name](training)
        assert watch(Seen("train", 1, 2, 0.5)) is False
        return False

    def end_all(self):
        self.is_over.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def run_missing(monkeypatch, root, errors):
    runner, params = Trainings(errors), cross_validation.config.read_yaml(PROJECT / "params.yaml")
    monkeypatch.setattr(cross_validation.places, "create", lambda *_: runner)
    board = Board("cv", "fold", 2, is_quiet=True)
    for fold in FOLDS:
        board.begin(fold.number, fold.name)
    try:
        cross_validation._run_missing(FOLDS, Place(), root, params, board)
    finally:
        assert sorted(runner.names) == [fold.name for fold in FOLDS]
    return board


def test_folds_are_shown_and_those_that_fail_leave_the_others(tmp_path, monkeypatch):
    board = run_missing(monkeypatch, tmp_path, {})
    assert [row.state for row in board.rows.values()] == ["done", "done"]
    first = FOLDS[0].name

    def fail(training):
        return TrainingError(training.log, "ERROR 2 split.folds: is 900. Fix: x", 255)

    with pytest.raises(RunError) as caught:
        run_missing(monkeypatch, tmp_path, {first: fail})
    (problem,) = caught.value.problems
    assert problem.path == str(tmp_path / cross_validation.STATE / f"{first}.log")
    assert problem.what == "fold 0 failed; the others are kept: split.folds: is 900"
    assert problem.fix == "x; then run this again"


def test_where_the_machine_is_at_fault_the_code_says_so(tmp_path, monkeypatch):
    lost = {fold.name: lambda training: MachineError(training.name, "was lost", "x") for fold in FOLDS}
    with pytest.raises(MachineError) as caught:
        run_missing(monkeypatch, tmp_path, lost)
    assert len(caught.value.problems) == 2


def test_the_code_of_folds_that_all_fail_alike_is_theirs(tmp_path, monkeypatch, capsys):
    first, second = (fold.name for fold in FOLDS)

    def fail(training):
        return IntegrityError(training.name, "is there already, with other results", "x")

    with pytest.raises(IntegrityError):
        run_missing(monkeypatch, tmp_path, {first: fail})
    with pytest.raises(RunError):
        run_missing(monkeypatch, tmp_path, {first: fail, second: lambda training: MachineError("x", "is lost", "x")})
    assert "fold 0: failed" in capsys.readouterr().out


def test_folds_that_were_ended_are_told_as_stopped(tmp_path, monkeypatch):
    runner = Trainings({fold.name: lambda training: MachineError("x", "was ended", "x") for fold in FOLDS})
    board = Board("cv", "fold", 2, is_quiet=True)
    board.begin(0, FOLDS[0].name)
    runner.end_all()
    assert cross_validation._run_fold(FOLDS[0], tmp_path, runner, board) is not None
    assert board.rows[0].state == "stopped"


@pytest.fixture
def unprepared(prepared, monkeypatch):
    """Preparation that must not begin."""
    monkeypatch.setattr(cross_validation, "prepare", lambda root: pytest.fail("data was prepared"))
    return prepared


def test_a_wrong_place_is_told_before_data_is_prepared(unprepared, monkeypatch):
    with pytest.raises(DataError, match="--gpus: is for a Ray cluster"):
        cross_validation.run(place=Place(gpus=1))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MachineError, match="needs Ray, which is not installed"):
        cross_validation.run(place=Place("ray"))


def test_a_cross_validation_that_runs_already_is_not_started_twice(unprepared):
    cross_validation.STATE.mkdir(parents=True)
    with FileLock(cross_validation.STATE / "lock"), pytest.raises(MachineError, match="is running"):
        cross_validation.run()


def test_what_a_killed_cross_validation_left_running_is_ended(prepared, monkeypatch):
    words = [sys.executable, "-c", "import time; time.sleep(600)", "exp", "run", "--name", "cv-0123abcd-1"]
    ended = []
    with subprocess.Popen(words, start_new_session=True) as left:
        monkeypatch.setattr(cross_validation, "prepare", lambda root: ended.append(left.poll()) or 1 / 0)
        try:
            with pytest.raises(ZeroDivisionError):
                cross_validation.run()
            assert len(ended) == 1 and ended[0] is not None  # before anything was prepared
        finally:
            left.kill()


@pytest.mark.parametrize(("threads", "at_once", "warned"), [("auto", 2, True), ("auto", 1, False), (2, 2, False)])
def test_folds_that_share_the_cores_are_warned_of(prepared, monkeypatch, capsys, threads, at_once, warned):
    monkeypatch.setattr(cross_validation.hardware, "cores", lambda: 8)
    monkeypatch.setattr(cross_validation.hardware, "list_gpus", list)
    params = cross_validation.config.read_yaml(prepared / "params.yaml")
    cross_validation._warn_of_shared_cores(
        cross_validation.config.merge(params, {"train": {"threads": threads}}), at_once
    )
    assert ("or set train.threads: 4" in capsys.readouterr().err) == warned


@pytest.fixture
def inherited(prepared):
    """A committed cross-validation, which each test then changes."""
    overrides = {"train": {"loss": "bce"}}
    read = revision.reader("workspace", prepared)
    now, later = config.read_yaml(prepared / "params.yaml"), config.list_defaults(*revision.BLOCKS)
    early = {block: {} for block in revision.BLOCKS} | {"train": {"loss": "bce", "seed": 1}, "render": {"dpi": 1}}
    made_with = config.merge(early, {block: {key: now[block][key] for key in keys} for block, keys in later.items()})
    made_from = revision.sources(read).model_dump()
    facts = {"protocol": PROTOCOL, "params": made_with, "overrides": overrides, "made_from": made_from}
    folder = prepared / cross_validation.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(run_files.sealed(facts)))
    columns = "patient,institution,subset,slices,tumour_pixels,dice,iou,precision,recall"
    (folder / "per_patient.csv").write_text(f"{columns}\nA,X,test,9,5,0.5,0.4,1,0.3\n")
    return prepared


def test_a_cross_validation_is_compared_by_what_made_it(inherited):
    scores = revision.scores("workspace", inherited, cross_validation=True)
    assert scores.patients["dice"].tolist() == [0.5]
    assert (scores.params["train"]["loss"], scores.warnings) == ("bce", [])


def test_a_cross_validation_of_other_parameters_is_refused_by_name(inherited):
    tiny_pipeline.demo.override(inherited / "params.yaml", {"train": {"seed": 9}, "render": {"dpi": 70}})
    with pytest.raises(DataError, match=r"made with other values of train\.seed$"):
        revision.scores("workspace", inherited, cross_validation=True)


def test_a_cross_validation_of_other_data_is_refused(inherited):
    lock = inherited / "dvc.lock"
    lock.write_text(lock.read_text().replace("0a", "0b"))
    with pytest.raises(DataError, match="other values of the data"):
        revision.scores("workspace", inherited, cross_validation=True)


def test_a_cross_validation_older_than_its_code_gets_a_warning(inherited):
    """Even for a comment: the program cannot know that it changes no number, so it names the file."""
    losses = inherited / "src/brainseg/training/losses.py"
    losses.write_text(losses.read_text() + "# a comment\n")
    (warning,) = revision.scores("workspace", inherited, cross_validation=True).warnings
    assert warning == "the numbers of workspace are older than its src/brainseg/training/losses.py"


def test_code_that_moved_and_repeats_a_fold_needs_no_warning(inherited):
    """The run beside the cross-validation was made by the moved code and has the scores of a fold."""
    losses, lock = inherited / "src/brainseg/training/losses.py", inherited / "dvc.lock"
    moved = losses.rename(losses.with_name("loss_functions.py"))
    losses.write_text("from brainseg.training.loss_functions import *\n")
    shutil.copy(inherited / cross_validation.FOLDER / "per_patient.csv", inherited / "metrics/per_patient.csv")
    assert revision.scores("workspace", inherited, cross_validation=True).warnings != []
    deps = [{"path": f"src/brainseg/training/{path.name}", "md5": inputs.md5(path)} for path in (losses, moved)]
    stages = json.loads(lock.read_text())["stages"] | {name: {"deps": deps} for name in revision.NUMBERS}
    lock.write_text(json.dumps({"stages": stages}))
    assert revision.scores("workspace", inherited, cross_validation=True).warnings == []
    moved.write_text(moved.read_text() + "# a comment\n")
    (warning,) = revision.scores("workspace", inherited, cross_validation=True).warnings
    assert warning == "the numbers of workspace are older than its src/brainseg/training/loss_functions.py"


def test_a_cross_validation_of_an_early_version_is_refused(inherited):
    path = inherited / cross_validation.FOLDER / "summary.json"
    facts = json.loads(path.read_text())
    del facts["made_from"]
    path.write_text(json.dumps(run_files.sealed(facts)))
    with pytest.raises(DataError, match="did not note what it was made from"):
        revision.scores("workspace", inherited, cross_validation=True)


def test_parameters_of_another_version_are_read_as_they_are(inherited):
    """An old revision may lack a parameter of today, or have one more."""
    params = inherited / "params.yaml"
    params.write_text(params.read_text().replace("  patience:", "  impatience:"))
    assert revision.scores("workspace", inherited, cross_validation=True).warnings == []


FEW = {**TINY, "split": {"folds": 3}, "phantom": {**TINY["phantom"], "patients": 9}}


def read_times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.log")}


@pytest.mark.slow
def test_side_by_side_as_one_by_one(tmp_path):
    """Two folds at a time give the same bytes as one; a second call runs nothing; the workspace does not change."""
    found = {}
    for jobs in ("1", "2"):
        repository = tiny_pipeline.create(tmp_path / f"jobs{jobs}", FEW)
        before = repository.git("status", "--porcelain")
        code, output = repository.brainseg("cross-validate", "--jobs", jobs)
        assert code == 0, output
        assert "9 patients out of fold" in output
        folder = repository.folder / cross_validation.FOLDER
        found[jobs] = {path.name: path.read_bytes() for path in folder.iterdir()}
        after = set(repository.git("status", "--porcelain").splitlines()) - set(before.splitlines())
        assert after == {"?? dvc.lock", "?? metrics/cross_validation/"}
        logs = read_times(repository.folder / cross_validation.STATE)
        assert len(logs) == 3
        code, output = repository.brainseg("cross-validate")
        assert code == 0, output
        assert output.count("is there") == 3
        assert read_times(repository.folder / cross_validation.STATE) == logs  # no fold was begun
    assert found["1"] == found["2"]


@pytest.mark.slow
def test_a_fold_that_fails_leaves_the_others(tmp_path):
    """The message names the fold; the next call runs only that fold."""
    repository = tiny_pipeline.create(tmp_path / "project", FEW)
    stage = repository.folder / "stages/split.py"
    read = '    params = config.load("split")\n'
    failing = f"{read}    import os\n    assert os.environ.get('FAIL') != str(params.split.test_fold)\n"
    assert read in stage.read_text()
    stage.write_text(stage.read_text().replace(read, failing))
    tiny_pipeline.commit(repository)
    repository.environment["FAIL"] = "1"
    status, output = repository.brainseg("cross-validate")
    assert status == 5, output
    assert "fold 1 failed; the others are kept" in output
    del repository.environment["FAIL"]
    status, output = repository.brainseg("cross-validate")
    assert status == 0, output
    assert output.count("is there") == 2
    summary = json.loads((repository.folder / cross_validation.FOLDER / "summary.json").read_text())
    assert summary["protocol"]["patients"] == 9
