"""Reading what a revision, an experiment or the workspace scored."""

import hashlib
import json

import pytest

from brainseg.data import inputs
from brainseg.errors import DataError, IntegrityError
from brainseg.experiments import comparison, revision
from tests.support import run_files, toy_pipeline

HEAD = "patient,institution,subset,slices,tumour_pixels,dice,iou,precision,recall\n"
PROTOCOL = {"source": "kaggle", "unit": "patient", "grid": 256, "marks": [], "empty_rule": "undefined"}


def score(folder, p2):
    metrics = folder / "metrics"
    rows = "0012,NA,test,9,5,0.5,0.4,1,0.3\nv,X,val,9,9,0.1,0.1,0.1,0.1\n" + f"P2,,test,9,0,{p2},,,\n"
    (metrics / "per_patient.csv").write_text(HEAD + rows)
    facts = {"protocol": PROTOCOL}
    (metrics / "evaluation.json").write_text(json.dumps(facts))


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


def test_validation_patients_where_asked(toy):
    scores = revision.scores("before", toy, validation=True)
    assert scores.patients["patient"].tolist() == ["v"] and scores.patients["dice"].tolist() == [0.1]


def test_test_patients_alone_with_ids_as_they_are_written(toy):
    scores = revision.scores("before", toy)
    assert scores.patients["patient"].tolist() == ["0012", "P2"]
    assert scores.patients["institution"].tolist() == ["NA", ""]
    assert scores.patients["dice"].tolist() == [0.5, 0.5]
    assert scores.patients["iou"].isna().tolist() == [False, True]
    assert scores.protocol.grid == 256


def test_the_workspace_is_what_lies_there(toy):
    assert revision.scores("workspace", toy).patients["dice"].tolist() == [0.5, 0.75]


def test_an_experiment_is_read_by_its_name(toy):
    c = comparison.compare(revision.scores("HEAD", toy), revision.scores("overlap", toy))
    assert c.params == {"train.loss": ("dice", "iou")}
    assert c.differences[0].ties == 2


def test_a_project_may_lie_in_a_folder_of_its_repository(tmp_path):
    project = tmp_path / "all/project"
    (project / "src/a").mkdir(parents=True)
    for name in ("params.yaml", "src/a/b.py", "src/c.py"):
        (project / name).write_text(name)
    repository = toy_pipeline.Repository(tmp_path / "all")
    for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "all")):
        repository.git(*command)
    read = revision.reader("HEAD", project)
    assert read("params.yaml") == "params.yaml" and read.inside("src") == ["src/a/b.py", "src/c.py"]


@pytest.mark.slow
def test_numbers_that_dvc_caches_and_git_does_not_have_are_read_too(tmp_path):
    toy = toy_pipeline.create(tmp_path / "toy")
    text = (toy.folder / "dvc.yaml").read_text()
    (toy.folder / "dvc.yaml").write_text(text.replace("metrics/training.csv: {cache: false}", "metrics/training.csv"))
    toy.git("rm", "--quiet", "--cached", "metrics/training.csv")
    code, output = toy.dvc("commit", "--force")
    assert code == 0, output
    toy.git("add", "--all")
    toy.git("commit", "--quiet", "--message", "cached")
    assert "training.csv" not in toy.git("ls-files")
    assert revision.reader("HEAD", toy.folder)("metrics/training.csv") == "training.csv"


def test_in_no_repository_the_way_to_one_is_told(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(DataError, match="is in no Git repository") as error:
        revision.reader("HEAD", tmp_path)
    assert "git init" in error.value.problems[0].fix


def test_no_cross_validation_names_the_command(toy):
    with pytest.raises(DataError) as error:
        revision.scores("workspace", toy, cross_validation=True)
    (line,) = error.value.lines()
    assert "workspace:metrics/cross_validation/per_patient.csv: there is no such file. Fix: run make cross-val" in line


def test_parameters_are_those_that_made_the_scores(toy):
    """An edited params.yaml has made nothing yet; single keys of a block are put together."""
    params = toy / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("dice", "jaccard"))
    scores = revision.scores("workspace", toy)
    params.write_text(text)
    assert scores.params == {"train": {"epochs": 2, "loss": "dice"}}
    assert scores.warnings == ["the numbers of workspace are older than its train.loss"]
    lock = "stages: {a: {params: {params.yaml: {split: {seed: 1}}}}, b: {params: {params.yaml: {split.unit: patient}}}}"
    assert revision.params(lambda path: lock) == {"split": {"seed": 1, "unit": "patient"}}


def test_what_auto_leaves_to_the_machine_makes_no_numbers_older():
    """The precision and the threads of another machine are no other parameters; a learning rate is."""
    then = {"train": {"precision": "bfloat16", "threads": 2, "learning_rate": 0.1}}
    now = "train: {precision: auto, threads: auto, learning_rate: 0.2}"
    assert revision._other_values("HEAD", then, {}, lambda path: now) == ["train.learning_rate"]
    back = {"train": {"precision": "auto", "threads": "auto", "learning_rate": 0.2}}
    fixed = now.replace("auto, t", "float32, t")
    assert revision._other_values("HEAD", back, {}, lambda path: fixed) == ["train.precision"]
    assert revision._other_values("HEAD", then, {}, lambda path: fixed) == ["train.learning_rate", "train.precision"]


def test_a_folder_of_numbers_is_read_as_it_is(toy, tmp_path):
    """What cross-validate --output kept, and the metrics of a run that lie somewhere."""
    for report in ("summary.json", "evaluation.json"):
        folder = tmp_path / report
        folder.mkdir()
        (folder / "per_patient.csv").write_text(TABLE)
        facts = run_files.sealed({"protocol": PROTOCOL, "params": {"train": {"seed": 7}}})
        (folder / report).write_text(json.dumps(facts))
        scores = revision.scores(str(folder), toy)
        assert (scores.name, scores.patients["dice"].tolist()) == (str(folder), [0.5])
        assert (scores.params, scores.warnings) == ({"train": {"seed": 7}}, ())


def test_numbers_older_than_the_code_are_said_loudly(toy):
    script = toy / "stages/train.py"
    text = script.read_text()
    script.write_text(text + "# a comment\n")
    scores = revision.scores("workspace", toy)
    script.write_text(text)
    assert scores.warnings == ["the numbers of workspace are older than its stages/train.py"]
    assert revision.scores("before", toy).warnings == revision.scores("overlap", toy).warnings == []


TABLE = HEAD + "A,X,test,9,5,0.5,0.4,1,0.3\n"
DAMAGED = [
    ("per_patient.csv", "", "No columns to parse"),
    ("per_patient.csv", TABLE.replace("iou", "jaccard"), "has no column iou"),
    ("per_patient.csv", TABLE.replace("0.5", "abc"), "could not convert string to float"),
    ("per_patient.csv", TABLE.replace("0.5", "2.5"), "not within 0 and 1"),
    ("per_patient.csv", TABLE + "<<<<<<< HEAD\n", "is of no subset"),
    ("per_patient.csv", TABLE + TABLE.splitlines()[1], "patient A is in it twice"),
    ("evaluation.json", "{", "Invalid JSON"),
    ("evaluation.json", "[]", "should be an object"),
    ("evaluation.json", "{}", "protocol: Field required"),
    ("evaluation.json", '{"protocol": {"grid": 256}}', "protocol.source: Field required"),
]


@pytest.mark.parametrize(("name", "content", "what"), DAMAGED)
def test_damaged_numbers_are_named_with_their_file(toy, name, content, what):
    """What a bad merge leaves behind."""
    path = toy / "metrics" / name
    text = path.read_text()
    path.write_text(content)
    with pytest.raises(DataError, match=what) as error:
        revision.scores("workspace", toy)
    path.write_text(text)
    assert error.value.lines()[0].startswith(f"ERROR 2 workspace:metrics/{name}: ")
    assert "git restore" in error.value.lines()[0]


@pytest.fixture
def made(toy, tmp_path):
    """Numbers that stages made, as dvc.lock says, and a cross-validation with the digest of its table."""
    evaluation = {"protocol": PROTOCOL, "test": {"volume": {"dice": {"mean": 0.5}}}}
    root, table = tmp_path / "project", TABLE + "B,X,val,9,5,0.3,0.4,1,0.3\n"
    contents = {path: table for path in (revision.TEST[0], revision.OUT_OF_FOLD[0], "metrics/per_slice.csv")}
    contents |= {revision.TEST[1]: json.dumps(evaluation), "params.yaml": "{train: {seed: 1}}"}
    tables = {"per_patient.csv": hashlib.sha256(table.encode()).hexdigest()}
    contents[revision.OUT_OF_FOLD[1]] = json.dumps(run_files.sealed(evaluation | {"tables": tables}))
    for path, text in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    outs = [{"path": path, "md5": inputs.md5(root / path)} for path in (*revision.TEST, "metrics/per_slice.csv")]
    (root / "dvc.lock").write_text(json.dumps({"stages": {"evaluate": {"outs": outs}}}))
    assert revision.scores("workspace", root).patients["patient"].tolist() == ["A"]
    return root


@pytest.mark.parametrize("path", [*revision.TEST, "metrics/per_slice.csv"])
def test_another_digit_in_what_a_stage_made_is_refused(made, path):
    replaced(made / path, "0.3" if path.endswith("csv") else "256", "0.4" if path.endswith("csv") else "257")
    with pytest.raises(IntegrityError, match=r"dvc\.lock says") as error:
        revision.reader("workspace", made)(path)
    (line,) = error.value.lines()
    assert line.startswith(f"ERROR 4 workspace:{path}: its MD5 is ") and f"git restore {path}" in line
    assert "dvc repro" in line


def test_another_digit_in_a_commit_is_refused(toy):
    """Its own dvc.lock tells what was made; it cannot be restored, so another one is asked for."""
    read = revision.Reader("before", toy)
    assert read("metrics/training.csv") == "training.csv"
    read._made["metrics/training.csv"] = "0" * 32
    with pytest.raises(IntegrityError, match=r"before:metrics/training\.csv: its MD5 is") as error:
        read("metrics/training.csv")
    assert "another revision" in error.value.problems[0].fix


def test_another_digit_in_a_kept_table_is_refused_by_the_reports_digest(made):
    """A cross-validation is in no dvc.lock: its summary has the digest. Early ones have none, and are read."""
    table, summary = (made / path for path in revision.OUT_OF_FOLD)
    replaced(table, "0.3", "0.4")  # a recall, which the mean Dice does not tell
    with pytest.raises(IntegrityError, match=r"per_patient.csv: its sha256 is .*, summary.json says"):
        revision.scores(str(table.parent), made)
    facts = json.loads(summary.read_text())
    del facts["tables"]
    summary.write_text(json.dumps(run_files.sealed(facts)))
    assert revision.scores(str(table.parent), made).patients["dice"].tolist() == [0.5]


@pytest.mark.parametrize(("old", "new", "what"), [
    ('"grid": 256', '"grid": 257', "the sha256 of its content is"),
    ("content_sha256", "content_sha257", "has no content_sha256"),
])  # fmt: skip
def test_another_digit_in_a_summary_of_folds_is_refused(old, new, what, made):
    path = made / revision.OUT_OF_FOLD[1]
    revision.scores(str(path.parent), made)
    replaced(path, old, new)
    for name in (str(path.parent), "workspace"):
        with pytest.raises(IntegrityError, match=f"summary.json: {what}") as error:
            revision.scores(name, made, cross_validation=True)
        assert "git restore it" in error.value.problems[0].fix


def test_a_summary_of_folds_in_a_revision_may_lack_a_digest(toy):
    """Those of earlier commits do, and git has digests of its own. One that has a digest must fit it."""
    path = revision.OUT_OF_FOLD[1]
    held = {path: json.dumps({"protocol": PROTOCOL}), "dvc.lock": "stages: {}"}
    read = revision.Reader("before", toy)
    read._text = held.__getitem__
    assert revision._report(read, "before", path).protocol.grid == 256
    held[path] = json.dumps(run_files.sealed({"protocol": PROTOCOL}) | {"tables": {}})
    with pytest.raises(IntegrityError, match=r"before:metrics/cross_validation/summary\.json: the sha256 of its"):
        revision._report(read, "before", path)


def test_a_table_is_refused_whose_mean_is_not_the_reports(made, tmp_path):
    """Whatever has no digest: the metrics of a run that somebody kept."""
    folder = made / "metrics"
    for before, after in (("0.5", "0.500003"), ("0.500003", "")):
        replaced(folder / "per_patient.csv", f"9,5,{before}", f"9,5,{after}")
        with pytest.raises(IntegrityError, match=r"have a mean Dice of (0.500003|nan), evaluation.json has 0.5"):
            revision.scores(str(folder), tmp_path)


def replaced(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("name", ["nope", "HEAD:params.yaml", ""])
def test_an_unknown_revision_says_where_to_look(toy, name):
    with pytest.raises(DataError) as error:
        revision.scores(name, toy)
    (line,) = error.value.lines()
    assert line.startswith(f"ERROR 2 {name or '(no name)'}: there is no such revision, branch or experiment (")
    assert "dvc exp list" in line


@pytest.mark.parametrize("above", ["", "patient,subset\n"])
def test_a_table_of_too_many_columns_is_refused_before_it_is_read(made, above):
    table = made / revision.TEST[0]
    table.write_text(above + ",".join(map(str, range(9000))) + "\n")
    (made / "dvc.lock").unlink()
    with pytest.raises(DataError, match="has 9,000 columns"):
        revision.scores("workspace", made)


@pytest.fixture
def folds(tmp_path):
    """A folder of folds; v is a validation patient of both."""
    rows = HEAD.replace("recall", "recall,fold")
    tables = {
        "per_patient.csv": rows + "t,X,test,9,5,0.5,0.4,1,0.3,0\n",
        "validation.csv": rows + "v,X,val,9,9,0.1,0.1,0.1,0.1,0\nv,X,val,9,9,0.2,0.2,0.2,0.2,1\n",
    }
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in tables.items()}
    summary = {"protocol": PROTOCOL, "test": {"volume": {"dice": {"mean": 0.5}}}, "tables": digests}
    for name, text in (tables | {"summary.json": json.dumps(run_files.sealed(summary))}).items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_validation_patient_of_several_folds_counts_in_each(folds):
    scores = revision.scores(folds.name, folds.parent, validation=True)
    assert scores.patients["patient"].tolist() == ["fold 0, v", "fold 1, v"]
    assert revision.scores(folds.name, folds.parent).patients["patient"].tolist() == ["t"]


@pytest.mark.parametrize(("old", "new"), [("0.2,0.2", "0.3,0.2"), ("0.2,1\n", "0.2,x\n")])
def test_a_table_of_validation_patients_that_was_edited(folds, old, new):
    table = (folds / "validation.csv").read_text()
    (folds / "validation.csv").write_text(table.replace(old, new))
    with pytest.raises(IntegrityError, match=r"validation\.csv: its sha256 is"):
        revision.scores(folds.name, folds.parent, validation=True)


def test_a_table_of_validation_patients_that_was_removed(folds):
    (folds / "validation.csv").unlink()
    with pytest.raises(DataError, match=r"validation\.csv: there is no such file"):
        revision.scores(folds.name, folds.parent, validation=True)


def test_folds_of_before_have_no_table_of_validation_patients(folds):
    (folds / "validation.csv").unlink()
    summary = json.loads((folds / "summary.json").read_text()) | {"tables": {}}
    (folds / "summary.json").write_text(json.dumps(run_files.sealed(summary)))
    with pytest.raises(DataError, match="or an earlier version made it"):
        revision.scores(folds.name, folds.parent, validation=True)
