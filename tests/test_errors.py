"""What is printed when something goes wrong."""

import errno
import json
import struct
import tempfile
import tokenize
import tomllib
import zlib
from pathlib import Path

import pytest

from brainseg import errors
from brainseg.errors import DataError, IntegrityError, MachineError, Problem, RunError


def fail_with(error):
    def main():
        raise error

    return main


def test_all_problems_are_printed_and_kept(capsys, project_root):
    problems = [Problem("a.tif", "empty file", "remove it"), Problem("b\n.tif", "no mask", "add one")]
    with pytest.raises(SystemExit) as stopped:
        errors.run(fail_with(DataError("", problems=problems)))
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2
    assert lines == ["ERROR 2 a.tif: empty file. Fix: remove it", "ERROR 2 b\\n.tif: no mask. Fix: add one"]
    kept = json.loads((project_root / ".brainseg" / "errors.json").read_text())
    assert [p["path"] for p in kept["problems"]] == ["a.tif", "b\n.tif"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (IntegrityError("x", "changed", "pull"), 4, "ERROR 4 x: changed. Fix: pull"),
        (OSError(errno.ENOSPC, "full", "/"), 3, "bytes free"),
        (MemoryError(), 5, "lower train.batch_size"),
        (ZeroDivisionError("oops"), 1, "this is a bug"),
        (
            ModuleNotFoundError("no uvicorn", name="uvicorn"),
            3,
            "uvicorn: is not installed. Fix: pip install 'brainseg-lgg[serve]'",
        ),
        (ModuleNotFoundError("no pandas", name="pandas.core"), 3, "pip install 'brainseg-lgg[train]'"),
        (ModuleNotFoundError("no such module", name="brainseg.nothing"), 1, "this is a bug"),
    ],
)
def test_codes(capsys, error, code, said):
    with pytest.raises(SystemExit) as stopped:
        errors.run(fail_with(error))
    text = capsys.readouterr().err
    assert stopped.value.code == code
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to http://ann:secret@127.0.0.1:9/api/2.0 and s3://k:secret@b", "to http://127.0.0.1:9/api/2.0 and s3://b"),
        ("postgresql+psycopg://ann:se/cr@et@db:5432/runs", "postgresql+psycopg://db:5432/runs"),
        ("https://secret@git.example/a@v1", "https://git.example/a@v1"),
        ("https://host:5000/path@v1", "https://host:5000/path@v1"),
        ("http://[::1]:5000/path@v1", "http://[::1]:5000/path@v1"),
        ("https://b/x?a=1&X-Amz-Signature=secret&b=2", "https://b/x?a=1&X-Amz-Signature=***&b=2"),
        ("ann@host, a/b@c", "ann@host, a/b@c"),
    ],
)
def test_an_address_is_told_without_its_password(text, shown):
    assert errors.redact(text) == errors.printable(text) == shown


def test_no_password_of_an_address_is_printed_or_kept(capsys, project_root, monkeypatch):
    monkeypatch.setenv("BRAINSEG_DEBUG", "1")
    address = "http://ann:secret@host/x"
    with pytest.raises(SystemExit):
        errors.run(fail_with(MachineError(address, f"{address} does not answer", f"open {address}")))
    told = capsys.readouterr()
    assert "http://host/x does not answer" in told.err
    assert "secret" not in told.err + told.out + (project_root / ".brainseg" / "errors.json").read_text()


def test_of_many_alike_the_first_five_are_printed_and_all_are_kept(capsys, project_root):
    problems = [errors.Problem(f"m/{n}.png", f"holds {n} values", "threshold it") for n in range(9)]
    problems.append(errors.Problem("x.png", "is damaged", "restore it"))
    with pytest.raises(SystemExit):
        errors.run(fail_with(DataError("", problems=problems)))
    told = capsys.readouterr().err.splitlines()
    kept = project_root / ".brainseg" / "errors.json"
    assert [line.split(":")[0].split()[-1] for line in told[:5]] == [f"m/{n}.png" for n in range(5)]
    assert told[5] == f"ERROR 2 and 4 more like these; all are in {kept}"
    assert told[6].startswith("ERROR 2 x.png") and len(told) == 7
    assert len(json.loads(kept.read_text())["problems"]) == 10


def test_a_full_disk_is_the_one_of_the_path(monkeypatch):
    monkeypatch.setattr(errors.files, "free_bytes", lambda path: 7 if str(path).startswith("/data") else 10**9)
    (line,) = errors.as_brainseg_error(OSError(errno.ENOSPC, "full", "/data/a.npy")).lines()
    assert line.startswith("ERROR 3 /data/a.npy: the disk is full (7 bytes free)")
    (line,) = errors.as_brainseg_error(OSError(errno.EDQUOT, "full")).lines()
    assert line.startswith("ERROR 3 .: a disk is full (bytes free: 1,000,000,000 in ") and tempfile.gettempdir() in line


def test_debug_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("BRAINSEG_DEBUG", "1")
    with pytest.raises(SystemExit):
        errors.run(fail_with(ValueError("x")))
    assert "Traceback" in capsys.readouterr().err


def test_the_name_that_pip_is_told_is_the_projects_own():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == errors.DISTRIBUTION
    assert {"serve", "train", "medical"} <= set(project["optional-dependencies"])


def test_no_problems_no_error():
    errors.raise_all([])


FOREIGN = [
    *(tokenize.TokenError, SyntaxError, NotImplementedError, RecursionError, AssertionError, KeyError, StopIteration),
    *(UnicodeError, OverflowError, zlib.error, struct.error, EOFError, Warning, ImportError, OSError),
    *(OSError(errno.EINVAL, "DOE^JANE"), PermissionError(errno.EACCES, "DOE^JANE", "JANE")),
]


@pytest.mark.parametrize("error", FOREIGN)
def test_whatever_reading_a_file_raises_names_the_file_and_quotes_nothing(error):
    error = error("DOE^JANE") if isinstance(error, type) else error
    with pytest.raises(DataError, match=r"^a\.dcm: (is damaged|cannot be read)") as caught, errors.guard("a.dcm"):
        raise error
    assert "DOE" not in str(caught.value) and caught.value.problems[0].fix
    with pytest.raises(IntegrityError) as caught, errors.guard("a.csv", "run: dvc repro", IntegrityError):
        raise error
    assert caught.value.problems[0].fix == "run: dvc repro"


def test_a_file_that_is_too_large_for_the_memory_is_named():
    with pytest.raises(RunError, match=r"a\.nii: needs more memory"), errors.guard("a.nii"):
        raise MemoryError


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), MachineError("x", "y", "z"), KeyboardInterrupt()])
def test_what_is_no_fault_of_the_file_passes(error):
    with pytest.raises(type(error)) as caught, errors.guard("a.nii"):
        raise error
    assert caught.value is error


def test_several_errors_are_all_printed_and_the_first_has_the_code(capsys):
    full, bad = MachineError("disk", "is full", "free space"), DataError("a.png", "is bad", "save it")
    with pytest.raises(SystemExit) as end:
        errors.run(fail_with(ExceptionGroup("x", [full, bad])))
    assert end.value.code == 3
    assert capsys.readouterr().err.splitlines() == [
        "ERROR 3 disk: is full. Fix: free space", "ERROR 2 a.png: is bad. Fix: save it"
    ]  # fmt: skip
