"""What is printed when something goes wrong."""

import errno
import json

import pytest

from brainseg import errors
from brainseg.errors import DataError, IntegrityError, Problem


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
    ],
)
def test_codes(capsys, error, code, said):
    with pytest.raises(SystemExit) as stopped:
        errors.run(fail_with(error))
    text = capsys.readouterr().err
    assert stopped.value.code == code
    assert said in text
    assert "Traceback" not in text


def test_debug_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("BRAINSEG_DEBUG", "1")
    with pytest.raises(SystemExit):
        errors.run(fail_with(ValueError("x")))
    assert "Traceback" in capsys.readouterr().err


def test_no_problems_no_error():
    errors.raise_all([])
