"""The command line: its commands, its errors, and the commands that have no module of their own."""

import json
import sys
from pathlib import Path

import pytest
import typer.main

from brainseg import __version__, cli
from brainseg.commands import external
from brainseg.experiments import comparison, revision
from brainseg.experiments.comparing import comparison_page, several
from brainseg.tracking import mlflow_runs, run_store
from brainseg.tuning import tune
from tests.support import run_files


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The top folder of a project, as the current folder."""
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


COMMANDS = typer.main.get_command(cli.app).commands


def test_help_lists_the_commands_and_version_names_the_package(monkeypatch, capsys):
    for option in ("-h", "--help"):
        assert call(monkeypatch, option) == 0
        shown = capsys.readouterr().out
        assert all(f"\n  {name} " in shown for name in COMMANDS)
        assert "..." not in shown.split("Commands:")[1]  # every summary fits on its line
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"brainseg {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_its_parameters(monkeypatch, capsys, name):
    assert call(monkeypatch, name, "--help") == 0
    assert "--debug" in capsys.readouterr().out
    assert COMMANDS[name].help and all(parameter.help for parameter in COMMANDS[name].params)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "predict"),
        ("predcit", "predcit"),
        ("predict a.png", "--output"),
        ("predict a.png -o out --threads 0", "--threads"),
        ("compare", "A"),
        ("cross-validate --scheme slice", "institution"),
        ("evaluate a b --foreground 1,x", "'1,x' is not a list of labels"),
        ("card --nothing", "--nothing"),
    ],
)
def test_wrong_usage_names_the_fault_and_exits_with_2(monkeypatch, capsys, line, named):
    assert call(monkeypatch, *line.split()) == 2
    told = capsys.readouterr()
    assert named in told.err and not told.out


def test_a_shell_completes_commands(monkeypatch, capsys):
    for name, value in {"_BRAINSEG_COMPLETE": "complete_bash", "COMP_WORDS": "brainseg pre", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(name, value)
    assert call(monkeypatch) == 0
    assert capsys.readouterr().out.split() == ["predict"]


def test_an_error_is_one_line_and_its_code(monkeypatch, project, capsys):
    assert call(monkeypatch, "repro", "nothing") == 2
    assert capsys.readouterr().err == (
        "ERROR 2 recipes/nothing.yaml: there is no such recipe. Fix: choose one of: none\n"
    )


def test_outside_of_a_project_it_says_what_folder_is_needed(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "compare", "HEAD") == 2
    assert capsys.readouterr().err == (
        f"ERROR 2 {tmp_path}: is in no project. Fix: cd to the folder that holds dvc.yaml and params.yaml\n"
    )


def test_below_the_top_folder_paths_are_the_users_and_the_rest_the_projects(monkeypatch, project, capsys):
    seen = {}
    monkeypatch.setattr(external, "run", lambda given, model, output: seen.update(given._asdict(), m=model, o=output))
    monkeypatch.setattr(revision, "scores", lambda name, **_: seen.setdefault("compared", []).append(name) or name)
    monkeypatch.setattr(comparison, "compare", lambda *_, **__: None)
    monkeypatch.setattr(comparison_page, "format_table", lambda _: "")
    (project / "notes/HEAD~1").mkdir(parents=True)
    (project / "notes/HEAD~1/per_patient.csv").touch()
    (project / "notes/docs").mkdir()
    (project / "evaluation").mkdir()
    monkeypatch.chdir(project / "notes")
    assert call(monkeypatch, "evaluate", "scans/*.png", "/masks", "-o", "evaluation") == 0
    assert Path.cwd() == project
    assert (seen["images"], seen["masks"], seen["predictions"]) == ("notes/scans/*.png", "/masks", None)
    assert (seen["m"], seen["o"]) == (Path("models"), Path("notes/evaluation"))
    monkeypatch.chdir(project / "notes")
    assert call(monkeypatch, "compare", "HEAD", "HEAD~1") == 0
    assert seen.pop("compared") == ["HEAD", "notes/HEAD~1"]
    monkeypatch.chdir(project / "notes")
    assert call(monkeypatch, "compare", "docs", "HEAD") == 0
    assert seen.pop("compared") == ["docs", "HEAD"]  # a branch
    monkeypatch.chdir(project / "notes")
    monkeypatch.setattr(several, "compare", lambda *_, **__: None)
    monkeypatch.setattr(several, "format_table", lambda _: "")
    assert call(monkeypatch, "compare", "docs", "HEAD", "HEAD~1") == 0
    assert seen.pop("compared") == ["docs", "HEAD", "notes/HEAD~1"]
    monkeypatch.chdir(project / "notes")
    monkeypatch.setenv("HOME", "/home/ann")
    assert call(monkeypatch, "evaluate", "~/scans/*.png", "", "-o", "~/out") == 0
    assert (seen["images"], seen["masks"], seen["o"]) == ("/home/ann/scans/*.png", "", Path("/home/ann/out"))
    assert call(monkeypatch, "evaluate", "~/scans/*.png", "masks") == 0  # in the top folder all stays as it is
    assert (seen["images"], seen["masks"], seen["o"]) == ("~/scans/*.png", "masks", Path("evaluation"))
    assert capsys.readouterr().err == ""


def test_debug_adds_the_traceback(monkeypatch, project, capsys):
    assert call(monkeypatch, "repro", "nothing", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_track_logs_what_is_there(monkeypatch, project):
    done = []

    def log(name):
        return lambda **options: done.append((name, options)) or name != "log_figures" or not down

    down = False
    monkeypatch.setattr(run_store, "check_store", lambda seconds: None)
    for name in ("log_training", "log_evaluation", "log_figures"):
        monkeypatch.setattr(mlflow_runs, name, log(name))
    assert call(monkeypatch, "track") == 0
    assert done == []
    (project / "metrics").mkdir()
    for name in ("training.csv", "evaluation.json", "report.html"):
        (project / "metrics" / name).touch()
    assert call(monkeypatch, "track") == 0
    patient = {"seconds": run_store.TRACK_SECONDS}
    once = patient | {"once": True}
    assert done == [("log_training", once), ("log_evaluation", once), ("log_figures", patient)]
    down = True
    assert call(monkeypatch, "track") == 3


def test_a_search_is_logged_when_it_ends_and_by_track(monkeypatch, project):
    done = []
    folder = Path("metrics/tune/x")
    monkeypatch.setattr(run_store, "check_store", lambda seconds: None)
    monkeypatch.setattr(mlflow_runs, "log_search", lambda *given, **options: done.append((*given, options)) or True)
    monkeypatch.setattr(mlflow_runs, "read_search", lambda given: done.append(given))
    monkeypatch.setattr(tune, "run", lambda *_, **options: ("what was found", folder))
    assert call(monkeypatch, "tune", "x.yaml") == 0
    (project / folder).mkdir(parents=True)
    (project / folder / "summary.json").touch()
    assert call(monkeypatch, "track") == 0
    logged = (folder, {"seconds": run_store.TRACK_SECONDS})
    assert done == [logged, folder, logged]


def test_track_refuses_numbers_that_no_stage_made(monkeypatch, project, capsys):
    (project / "metrics").mkdir()
    (project / "metrics/summary.json").write_text('{"test_volume_dice": 0.9}')
    out = {"path": "metrics/summary.json", "md5": "0" * 32}
    (project / "dvc.lock").write_text(json.dumps({"stages": {"evaluate": {"outs": [out]}}}))
    assert call(monkeypatch, "track") == 4
    assert capsys.readouterr().err.startswith("ERROR 4 metrics/summary.json: its MD5 is ")


def test_track_refuses_a_cross_validation_that_was_edited(monkeypatch, project, capsys):
    """It is in no dvc.lock, and refused before anything is logged."""
    path = project / "metrics/cross_validation/summary.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(run_files.cross_validation() | {"overrides": {"train": {"seed": 2}}}))
    assert call(monkeypatch, "track") == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ERROR 4 metrics/cross_validation/summary.json: the sha256 of its content is ")
