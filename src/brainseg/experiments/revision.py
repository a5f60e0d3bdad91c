"""What a Git revision, a branch, a DVC experiment or the workspace scored, read through Git and DVC's cache."""

import functools
import glob
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from brainseg import config, errors, files
from brainseg.data import csv_tables, inputs
from brainseg.errors import DataError, IntegrityError, MachineError, Problem, guard, raise_all
from brainseg.evaluation import results
from brainseg.evaluation.results import MadeFrom
from brainseg.experiments import integrity
from brainseg.experiments.comparison import LATER_METRICS, METRICS, ComparedProtocol, Scores, diff_params

WORKSPACE = "workspace"
MAX_COLUMNS = 100  # of a table of scores
REMOTE_SECONDS = 600.0  # for one file that DVC's cache lacks and its remote has
ROUNDED = 1.1e-6  # a mean has six decimals, a score six digits
REMEDY = "git restore it, or make it again as the README says"  # of damaged numbers
TEST = ("metrics/per_patient.csv", "metrics/evaluation.json")
NUMBERS = ("brains", "split", "train", "evaluate")  # the stages that make numbers out of the prepared data
# The blocks whose parameters determine a fold's numbers, except the number of the fold.
BLOCKS = ("brains", "split", "train", "network", "augmentation", "evaluate")
MACHINE = ("train.devices", "train.precision", "train.threads")  # auto leaves them to the machine
OUT_OF_FOLD = ("metrics/cross_validation/per_patient.csv", "metrics/cross_validation/summary.json")


class Sources(MadeFrom):
    """What is read of it, of any version."""

    model_config = ConfigDict(extra="ignore")


class ToldMean(BaseModel):
    """A mean that a report tells; None: undefined."""

    mean: float | None


class ToldVolume(BaseModel):
    """The report's block ``volume``."""

    dice: ToldMean


class ToldTest(BaseModel):
    """The report's block ``test``."""

    volume: ToldVolume


class Report(BaseModel):
    """What is read of evaluation.json or of a cross-validation's summary.json, of any version."""

    model_config = ConfigDict(frozen=True, strict=True)

    protocol: ComparedProtocol
    test: ToldTest | None = None
    tables: dict[str, str] = {}
    params: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    made_from: Sources | None = None


class Reader:
    """Reads the files of a revision, an experiment or the workspace by their paths in the repository."""

    def __init__(self, name: str, root: Path):
        self.name, self.root = name, root
        self._git = None if name == WORKSPACE else _Revision(name, root)

    def __call__(self, path: str) -> str:
        """The text of a file.

        Raises:
            DataError: there is no such file. IntegrityError: it is not the one that a stage made.
        """
        try:
            text = self._text(path)
        except FileNotFoundError:
            command = "make cross-validate" if path in OUT_OF_FOLD else "dvc repro"
            made = path in (*OUT_OF_FOLD, *TEST)
            fix = f"run {command}" if made else f"it belongs to the project: git restore {path}"
            fix = fix if self.name == WORKSPACE or not made else f"{fix} there and commit what it writes"
            raise DataError(f"{self.name}:{path}", "there is no such file", fix) from None
        if path.startswith("metrics/"):  # what the stages make and git has; DVC's cache is read by ``fetched``
            self.require(path, hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())
        return text

    def _text(self, path: str) -> str:
        try:
            if self._git is None:
                return (self.root / path).read_text(encoding="utf-8")
            return self._git.read_text(path)
        except UnicodeDecodeError:
            raise DataError(f"{self.name}:{path}", "is damaged: it is not UTF-8", REMEDY) from None
        except FileNotFoundError:
            if self._git is None or not path.startswith("metrics/"):  # numbers may be cached instead of committed
                raise
            return self._cached.read_text(path, encoding="utf-8")

    @functools.cached_property
    def _cached(self):
        """What reads the files of a revision that DVC's cache or remote has. To open it takes a second."""
        from dvc.api import DVCFileSystem

        return DVCFileSystem(str(self.root.resolve()), rev=self.name)

    def download(self, path: str, target: Path) -> None:
        """Copy a file of a revision that DVC's cache has. Raises FileNotFoundError: it has not."""
        self._cached.get_file(path, str(target))

    @functools.cached_property
    def _made(self) -> dict[str, str]:
        """The MD5 of what the stages made, from the dvc.lock beside it; empty if there is none."""
        try:
            return inputs.list_outs(_parse_lock(self._text("dvc.lock")))
        except FileNotFoundError:
            return {}

    def require(self, path: str, found: str) -> None:
        """Refuse a file whose MD5 is ``found`` if a stage made another one.

        Raises:
            IntegrityError: its MD5 is not that of dvc.lock.
        """
        if found != (expected := self._made.get(path, found)):
            _, what, fix = inputs.describe_difference(path, found, expected)
            again = f"dvc exp remove {self.name}, run again (an experiment); name another revision (a commit)"
            raise IntegrityError(f"{self.name}:{path}", what, fix if self.name == WORKSPACE else again)

    def inside(self, folder: str) -> list[str]:
        """The paths of all files below a folder, bytecode apart, sorted as DVC sorts them."""
        if self._git is None:
            here = (self.root / folder).rglob("*")
            found = [path.relative_to(self.root).as_posix() for path in here if path.is_file()]
        else:
            found = self._git.find(folder)
        return sorted(path for path in found if "__pycache__" not in path.split("/"))


def scores(
    name: str, root: Path = Path(), *, cross_validation: bool = False, validation: bool = False
) -> Scores:  # fmt: skip
    """Read the scores of the test patients of ``name``, or of all patients out of fold, or of validation patients.

    ``name``: "workspace", a name that ``git`` or ``dvc exp`` knows, or a folder that evaluate or
    ``cross-validate --output`` wrote.

    The parameters are those that made the scores, not those of params.yaml now. There is a warning if parameters
    or code have changed since.

    Raises:
        DataError: no such revision, nothing was evaluated there, damaged files, or a cross-validation of other
            data or parameters.
        IntegrityError: a table or report is not the one that was made there, or not of the same run as the other.
    """
    if (root / name / "per_patient.csv").is_file() and name != WORKSPACE:
        return _read_folder(name, root, validation)
    read = reader(name, root)
    table, report = OUT_OF_FOLD if cross_validation else TEST
    patients, facts = _read_numbers(read, name, table, report)
    if cross_validation:
        made_with, since = facts.params, _since_cross_validation(name, facts, patients, read)
    else:
        made_with, since = _since_repro(name, read)
    warnings = [f"the numbers of {name} are older than its {', '.join(since)}"] if since else []
    if validation:
        of_folds = table.replace("per_patient", "validation")
        patients = _read_validation(read, name, of_folds, facts) if cross_validation else _validated(patients)
        return Scores(name, patients, facts.protocol, made_with, warnings)
    return Scores(name, _test_patients(patients), facts.protocol, made_with, warnings)


def _read_folder(folder: str, root: Path, validation: bool) -> Scores:
    """Numbers alone: there are no parameters and no code beside them that could be newer."""
    report = "evaluation.json" if (root / folder / "evaluation.json").exists() else "summary.json"
    read = reader(WORKSPACE, root / folder)
    patients, facts = _read_numbers(read, folder, "per_patient.csv", report)
    if validation and report == "summary.json":
        patients = _read_validation(read, folder, "validation.csv", facts)
    else:
        patients = _validated(patients) if validation else _test_patients(patients)
    return Scores(folder, patients, facts.protocol, facts.params)


def _read_validation(read: Reader, name: str, table: str, facts: Report) -> pd.DataFrame:
    """The validation patients of folds; one who is in several has a row for each."""
    if PurePosixPath(table).name not in facts.tables:
        what = "has no scores of validation patients: its rule is cross-fitted, or an earlier version made it"
        raise DataError(name, what, "compare test patients, without --validation; or run its folds again")
    text = read(table)
    _require_table(text, name, table, "summary.json", facts)
    found = parse_table(text)
    with guard(f"{name}:{table}", REMEDY):
        named = found["fold"].astype(int).map("fold {}, ".format) + found["patient"]
    return _parse_patients(found.assign(patient=named).to_csv(index=False), name, table)


def _validated(patients: pd.DataFrame) -> pd.DataFrame:
    return patients[patients["subset"] == "val"].reset_index(drop=True)


def _read_numbers(read: Reader, name: str, table: str, report: str) -> tuple[pd.DataFrame, Report]:
    """A table of patients and the report beside it.

    Raises:
        IntegrityError: they are not of one run: by the table's digest, if the report has it, and by their mean Dice.
    """
    text = read(table)
    patients, facts = _parse_patients(text, name, table), _report(read, name, report)
    _require_table(text, name, table, report, facts)
    scored = _test_patients(patients)["dice"].astype(float).mean()
    told = facts.test.volume.dice.mean if facts.test else scored
    if not np.isclose(scored, np.nan if told is None else told, rtol=0, atol=ROUNDED, equal_nan=True):
        what = f"its test patients have a mean Dice of {scored:.6f}, {report} has {told}"
        raise IntegrityError(f"{name}:{table}", what, REMEDY)
    return patients, facts


def _require_table(text: str, name: str, table: str, report: str, facts: Report) -> None:
    """Refuse a table that does not fit the digest in the report beside it, where that has one."""
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != (expected := facts.tables.get(PurePosixPath(table).name, found)):
        raise IntegrityError(f"{name}:{table}", f"its sha256 is {found}, {report} says {expected}", REMEDY)


def _test_patients(patients: pd.DataFrame) -> pd.DataFrame:
    return patients[patients["subset"] == "test"].reset_index(drop=True)


def _parse_patients(text: str, name: str, path: str) -> pd.DataFrame:
    try:
        if (columns := max(line.count(",") for line in text.split("\n")) + 1) > MAX_COLUMNS:
            raise ValueError(f"has {columns:,} columns")  # which take seconds to read
        table = parse_table(text)
        missing = {"patient", "subset", "institution", "slices", "tumour_pixels", *METRICS} - set(table)
        if missing:
            raise ValueError(f"has no column {', '.join(sorted(missing))}")
        if not table["subset"].isin(("train", "val", "test")).all():
            raise ValueError("has a row that is of no subset")
        measures = table[[*METRICS, *(metric for metric in LATER_METRICS if metric in table)]].astype(float)
        if ((measures < 0) | (measures > 1)).any(axis=None):
            raise ValueError("has a score that is not within 0 and 1")
    except (ValueError, pd.errors.ParserError) as error:  # an empty file, letters for a number
        raise DataError(f"{name}:{path}", f"is damaged: {' '.join(str(error).split())}", REMEDY) from None
    twice = sorted(table.loc[table["patient"].duplicated(), "patient"])
    raise_all([Problem(f"{name}:{path}", f"patient {patient} is in it twice", REMEDY) for patient in twice])
    return table


def _report(read: Reader, name: str, path: str) -> Report:
    """The report at ``path``. A summary of folds on the disk must fit its digest; what a revision holds, git checks.

    Raises:
        DataError: it is damaged. IntegrityError: it is a summary, and not the one that was made.
    """
    text = read(path)
    try:
        found = Report.model_validate_json(text)
    except ValueError as error:
        raise DataError(f"{name}:{path}", f"is damaged or of another version: {config.reason(error)}", REMEDY) from None
    if PurePosixPath(path).name == "summary.json":
        results.require_digest(f"{name}:{path}", text, early=read.name != WORKSPACE)
    return found


def _since_repro(name: str, read: Reader) -> tuple[dict, list[str]]:
    """The parameters in dvc.lock; and the results, parameters and code that are newer than the numbers."""
    stages = _read_lock(read)
    made_with, older = _params(stages), sorted({dep for _, dep in inputs.find_older(TEST, stages)})
    return made_with, older + _other_values(name, made_with, {}, read) + _changed_code(stages, read)


def _changed_code(stages: dict, read: Reader) -> list[str]:
    """The code that is not what dvc.lock notes; none of the scores depends on the render stage."""
    locked = {dep["path"]: dep["md5"] for stage in set(stages) - {"render"} for dep in stages[stage].get("deps", [])}
    return [path for path, digest in sorted(locked.items()) if _is_code(path) and _md5(read, path) != digest]


def _since_cross_validation(name: str, summary: Report, patients: pd.DataFrame, read: Reader) -> list[str]:
    """The code that changed since the cross-validation. Other data or parameters are refused.

    If the run beside it repeats one of its folds, only changes since that run count: code that moved or was renamed
    gives the same numbers.
    """
    if summary.made_from is None:
        what = "its cross-validation is of a version that did not note what it was made from"
        raise DataError(name, what, "make it again there, or compare with a later revision")
    now, then = sources(read), summary.made_from
    differ = _other_values(name, summary.params, summary.overrides, read)
    differ += ["the data"] if now.data != then.data else []
    if differ:
        what = f"its cross-validation was made with other values of {', '.join(differ)}"
        fix = "run make cross-validate there and commit it (an experiment becomes a branch by: dvc exp branch)"
        raise DataError(name, what, fix)
    differ = sorted({path for path, _ in now.code.items() ^ then.code.items()})
    stages = {stage: facts for stage, facts in _read_lock(read).items() if stage in NUMBERS}
    if differ and len(stages) == len(now.commands) and _repeats_a_fold(name, patients, read):
        return _changed_code(stages, read)
    return differ


def _repeats_a_fold(name: str, out_of_fold: pd.DataFrame, read: Reader) -> bool:
    """Whether the run beside a cross-validation has the same scores, to the last digit, for all its test patients."""
    try:
        tested = _test_patients(_parse_patients(read(TEST[0]), name, TEST[0]))
    except DataError:  # there is no run beside it
        return False
    columns = ["patient", "slices", "tumour_pixels", *METRICS]
    fold = out_of_fold[out_of_fold["patient"].isin(tested["patient"])]
    same = [table[columns].sort_values("patient", ignore_index=True) for table in (tested, fold)]
    return len(tested) > 0 and same[0].equals(same[1])


def _other_values(name: str, then: dict, overrides: dict, read: Reader) -> list[str]:
    """Names of the parameters whose values in params.yaml differ from those in ``then``.

    Left out: parameters that no score depends on, and those that ``auto`` leaves to the machine now.
    """
    now = config.merge(config.parse_yaml(read("params.yaml"), f"{name}:params.yaml"), overrides)
    made = {block: values for block, values in then.items() if block not in ("render", "export")}
    now, made = (config.merge(config.list_defaults(*(set(BLOCKS) & set(made))), each) for each in (now, made))
    here = {block: {key: now.get(block, {}).get(key) for key in values} for block, values in made.items()}
    return sorted(
        key for key, values in diff_params(made, here).items() if not (key in MACHINE and values[1] == "auto")
    )


def _is_code(path: str) -> bool:
    """The brain masks that come with the program are no text; their digest stands in the module that reads them."""
    return path.startswith(("src/", "stages/")) and not path.endswith(".xz")


def _files(read: Reader, dep: str) -> list[str]:
    """The files of a dep, which is a file or a folder (every file of code has an ending)."""
    return [dep] if PurePosixPath(dep).suffix else read.inside(dep)


def _md5(read: Reader, path: str) -> str | None:
    """DVC's name of a file, or of a folder: the digest of the JSON list of its files."""
    try:
        if PurePosixPath(path).suffix:
            return hashlib.md5(read(path).encode(), usedforsecurity=False).hexdigest()
        inside = [{"md5": _md5(read, name), "relpath": name.removeprefix(f"{path}/")} for name in read.inside(path)]
        return hashlib.md5(json.dumps(inside, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    except DataError:  # the file no longer exists
        return None


def params(read: Reader) -> dict:
    """The parameters in dvc.lock, nested as in params.yaml: those that the stages ran with, not later edits."""
    return _params(_read_lock(read))


def _read_lock(read: Reader) -> dict:
    """The stages of dvc.lock."""
    return _parse_lock(read("dvc.lock"))["stages"]


@functools.lru_cache(maxsize=16)
def _parse_lock(text: str) -> dict:
    """The same text is parsed once, which takes a quarter of a second; nobody changes what is found.

    Raises:
        DataError, IntegrityError: it is damaged.
    """
    found = config.parse_yaml(text, "dvc.lock")
    with guard("dvc.lock", REMEDY, IntegrityError):
        for stage in found["stages"].values():
            for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
                assert isinstance(entry["path"], str) and isinstance(entry["md5"], str)
    return found


def _params(stages: dict) -> dict:
    found: dict = {}
    for stage in stages.values():
        for key, value in stage.get("params", {}).get("params.yaml", {}).items():
            *blocks, last = key.split(".")
            place = found
            for block in blocks:
                place = place.setdefault(block, {})
            place[last] = {**place.get(last, {}), **value} if isinstance(value, dict) else value
    return found


def key(read: Reader, overrides: dict) -> str:
    """A digest of what determines the numbers of folds: data, code, parameters; not the number of the (inner) fold.

    The test fold counts where there are inner ones: who is left out depends on it.
    """
    raw = config.merge(config.parse_yaml(read("params.yaml"), "params.yaml"), overrides)
    params = config.check(raw, Path("params.yaml")).model_dump()
    params["split"][config.fold_parameter(params["split"]["inner_folds"])] = None
    facts = sources(read).model_dump() | {"params": {block: params[block] for block in BLOCKS}}
    if initial := params["train"]["initial_weights"]:
        digests = [files.sha256(path) for path in _files_of_folds(initial)]
        facts["initial"] = digests if config.FOLD in initial else next(iter(digests), None)
    if soft := params["train"]["soft_masks"]:
        told = (path.with_suffix(".json") for path in _files_of_folds(soft))
        facts["soft_masks"] = [path.read_text() for path in told if path.is_file()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def _files_of_folds(named: str) -> list[Path]:
    """The files that are there of a parameter that may name one for each fold, however many folds there are."""
    whole = glob.escape(str(files.project_root() / Path(named).expanduser()))
    return [Path(path) for path in sorted(glob.glob(whole.replace(config.FOLD, "*"))) if Path(path).is_file()]


def sources(read: Reader) -> MadeFrom:
    """What the numbers of ``read`` are made from, without the parameters."""
    pipeline = config.parse_yaml(read("dvc.yaml"), "dvc.yaml")["stages"]
    stages = [pipeline[name] for name in NUMBERS if name in pipeline]  # early ones have no brains
    deps = {dep for stage in stages for dep in stage["deps"] if _is_code(dep)}
    code = sorted({path for dep in deps for path in _files(read, dep)})
    return MadeFrom(
        data=[out["md5"] for out in _read_lock(read)["preprocess"]["outs"]],
        code={path: hashlib.sha256(read(path).encode()).hexdigest() for path in code},
        commands=[stage["cmd"] for stage in stages],
    )


def parse_table(text: str) -> pd.DataFrame:
    """A table of scores: ids and names stay text, an empty cell of a number is NaN."""
    names = {"patient": str, "institution": str, "subset": str}
    table = csv_tables.read_csv(text, dtype=names, keep_default_na=False, na_values=[""])
    return table.fillna(dict.fromkeys(names, ""))


def reader(name: str, root: Path = Path()) -> Reader:
    """What reads the files of ``name``."""
    return Reader(name, root)


@contextmanager
def fetched(path: str, name: str, root: Path = Path()) -> Iterator[Path]:
    """A temporary copy of a file that ``name`` has in DVC's cache; the file itself for the workspace.

    Raises:
        DataError: the cache, or the workspace, does not have it. IntegrityError: it is not the one that a stage made.
        MachineError: it is in a remote that does not answer.
    """
    if name == WORKSPACE:
        if not (root / path).is_file():
            raise DataError(root / path, "there is no such file", "run dvc repro")
        inputs.verify([path], root)
        yield root / path
        return
    with TemporaryDirectory() as folder:
        local, read = Path(folder) / Path(path).name, Reader(name, root)
        try:
            errors.limit(REMOTE_SECONDS, functools.partial(read.download, path, local))
        except FileNotFoundError:
            raise DataError(f"{name}:{path}", "is not in DVC's cache", f"dvc exp remove {name}, run again") from None
        except TimeoutError as error:
            raise MachineError(f"{name}:{path}", f"DVC's remote: {error}", f"dvc fetch {path} -v shows why") from None
        read.require(path, inputs.md5(local))
        yield local


class _Revision:
    """The files that Git has of a revision. Paths are those in the project, which may be a folder of the repository."""

    def __init__(self, name: str, root: Path):
        commit, top = _find_commit(name, root)
        self._tree, self._top = commit.tree, root.resolve().relative_to(top)

    def read_text(self, path: str) -> str:
        return io.TextIOWrapper(io.BytesIO(self._get(path).data), encoding="utf-8").read()

    def find(self, folder: str) -> list[str]:
        """The paths of all files below a folder, none if there is no such folder."""
        found = []
        for entry in self._get(folder) if folder in self else ():
            path = f"{folder}/{entry.name}"
            found += self.find(path) if entry.type_str == "tree" else [path]
        return found

    def __contains__(self, path: str) -> bool:
        return (self._top / path).as_posix() in self._tree

    def _get(self, path: str) -> Any:
        if path not in self:
            raise FileNotFoundError(path)
        return self._tree[(self._top / path).as_posix()]


def _find_commit(name: str, root: Path) -> tuple[Any, Path]:
    """A commit, and the top folder of its repository.

    Raises:
        DataError: there is no such revision or experiment, or no repository.
    """
    import pygit2

    reason = "a name of one is needed"
    if name and ":" not in name:  # REVISION:PATH is no revision
        integrity.check_git(root)
        repository = pygit2.Repository(pygit2.discover_repository(str(root.resolve())))
        top = Path(repository.workdir).resolve()
        try:
            return repository.resolve_refish(name)[0].peel(pygit2.Commit), top
        except (KeyError, ValueError, pygit2.GitError):  # the name of an experiment; half of DVC is imported to find it
            from dvc.scm import SCM, SCMError, resolve_rev
        try:
            return repository[resolve_rev(SCM(str(root.resolve())), name)].peel(pygit2.Commit), top
        except SCMError as error:
            reason = " ".join(str(error).split())
    fix = "git log --oneline --all lists revisions, dvc exp list --all experiments"
    raise DataError(name or "(no name)", f"there is no such revision, branch or experiment ({reason})", fix)
