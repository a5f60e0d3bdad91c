"""The command line: its verbs, its errors, and what needs no module of its own to be tested."""

import sys

import pytest

from brainseg import cli
from brainseg.tracking import mlflow_runs


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's top folder, to be in."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch, *arguments):
    """Run ``brainseg ARGUMENTS`` here; return the exit code."""
    monkeypatch.setattr(sys, "argv", ["brainseg", *arguments])
    try:
        cli.main()
    except SystemExit as end:
        return end.code
    return 0


def test_help_lists_the_verbs(monkeypatch, capsys):
    assert call(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in cli.VERBS)


def test_an_unknown_verb_is_refused(monkeypatch, capsys):
    assert call(monkeypatch, "predcit") == 2
    assert "predcit" in capsys.readouterr().err


def test_a_fault_is_one_line_and_its_code(monkeypatch, project, capsys):
    assert call(monkeypatch, "repro", "nothing") == 2
    assert capsys.readouterr().err == (
        "ERROR 2 recipes/nothing.yaml: there is no such recipe. Fix: choose one of: none\n"
    )


@pytest.mark.parametrize("inside", [True, False])
def test_elsewhere_it_names_the_folder_to_go_to(monkeypatch, project, capsys, inside):
    folder = project / "docs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if not inside:
        (project / "dvc.yaml").unlink()
    assert call(monkeypatch, "compare", "HEAD") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ERROR 2 {folder}: is not the project's top folder. Fix: cd ")
    assert (f"cd {project}\n" in error) == inside
    assert not list(folder.iterdir())


def test_debug_adds_the_traceback(monkeypatch, project, capsys):
    assert call(monkeypatch, "repro", "nothing", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_track_logs_what_is_there(monkeypatch, project):
    done = []

    def log(name):
        return lambda **options: done.append((name, options)) or name != "log_figures" or not down

    down = False
    for name in ("log_training", "log_evaluation", "log_figures"):
        monkeypatch.setattr(mlflow_runs, name, log(name))
    assert call(monkeypatch, "track") == 0
    assert done == []
    (project / "metrics").mkdir()
    for name in ("training.csv", "evaluation.json", "report.html"):
        (project / "metrics" / name).touch()
    assert call(monkeypatch, "track") == 0
    assert done == [("log_training", {"once": True}), ("log_evaluation", {"once": True}), ("log_figures", {})]
    down = True
    assert call(monkeypatch, "track") == 3
