"""Nothing is written but answers, nobody is called: with a clean home and the network watched.

ONNX Runtime's reports are made in C++, which the hook does not see. They leave an identifier and a queue in the home,
which does. What keeps it silent on the machines of a CI, an environment variable, is not set here.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from PIL import Image

from brainseg import config
from brainseg.evaluation.results import Evaluation
from brainseg.inference import onnx_session
from brainseg.models.manifest import Manifest
from brainseg.reporting import model_card
from brainseg.tracking import run_store
from tests.support import onnx_toy, phantom_examples, run_files, tiny_pipeline
from tests.support.watch import SITE, Watched

ROOT = Path(__file__).parents[2]
BRAINSEG = [sys.executable, "-c", "from brainseg.cli import main; main()"]


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path / "watched", ROOT / "src")


@pytest.fixture
def model(tmp_path):
    report = Evaluation.model_validate(run_files.evaluation())
    facts = model_card.collect_facts(Manifest.model_validate(run_files.manifest()), report)
    told = facts.model_dump(exclude_unset=True) | {"format": onnx_session.FORMAT, "variant": "float32"}
    return onnx_toy.write(tmp_path / "unet.onnx", told, side=256)


def run(watched, *words, cwd):
    return subprocess.run(words, cwd=cwd, env=watched.environment, capture_output=True, text=True, timeout=3000)


def test_the_watch_sees(watched, tmp_path):
    code = (
        "import pathlib, socket; pathlib.Path('elsewhere').write_text('x'); pathlib.Path.home().joinpath('a').touch();"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    )
    assert run(watched, sys.executable, "-c", code, cwd=tmp_path).returncode == 0
    assert watched.seen() == [f"wrote {tmp_path}/elsewhere", "called ('127.0.0.1', 9)", f"left {watched.home}/a"]


def test_predict_writes_its_answers_alone(watched, model, tmp_path):
    first, *rest = [Image.fromarray(page) for page in phantom_examples.pages()["phantom-1.tif"]]
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    out = watched.home.parent / "out"
    done = run(
        watched, *BRAINSEG, "predict", str(tmp_path / "a.tif"), "-o", str(out), "--model", str(model), cwd=tmp_path
    )
    assert done.returncode == 0 and (out / "summary.csv").exists(), done.stderr
    assert watched.seen() == []


def test_a_server_that_starts_and_ends_writes_nothing(watched, model, tmp_path):
    command = [*BRAINSEG, "serve", "--port", "0", "--model", str(model)]
    with subprocess.Popen(command, cwd=tmp_path, env=watched.environment, stdout=subprocess.PIPE, text=True) as server:
        address = server.stdout.readline().split()[-1]
        assert requests.get(f"{address}ready", timeout=60).ok
        server.terminate()
        assert server.wait(60) in (0, -15)
    assert watched.seen() == []


def test_fonts_are_listed_in_the_project(watched):
    """By whoever draws: `brainseg evaluate` and the render stage."""
    project = watched.home.parent
    code = "from brainseg.reporting import charts; from matplotlib import font_manager"
    assert run(watched, sys.executable, "-c", code, cwd=project).returncode == 0
    assert list((project / ".brainseg/matplotlib").glob("fontlist*.json"))
    assert watched.seen() == []


def test_mlflow_is_told_to_report_nothing_wherever_a_user_is_told_to_start_it():
    """It is a process of the user's then, in which this package sets nothing."""
    started = {}
    for path in (ROOT / "Makefile", ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.py")):
        text = path.read_text(encoding="utf-8")
        for command in re.finditer(r"mlflow (ui|server|models serve|experiments restore) -", text):
            before = text[: command.start()].rpartition("```bash" if path.suffix == ".md" else "\n")[2]
            started[path.name, command[1]] = "MLFLOW_DISABLE_TELEMETRY=true" in before or "{SILENT} " in before
    assert started == dict.fromkeys(
        [("Makefile", "ui"), ("experiment.md", "ui"), ("registry.md", "models serve"),
         ("run_store.py", "experiments restore"),
         ("registry.py", "models serve")], True
    )  # fmt: skip
    assert run_store.SILENT == "MLFLOW_DISABLE_TELEMETRY=true"
    team = config.read_yaml(ROOT / "compose.yaml")["services"]
    servers = [each for each in team.values() if "mlflow server" in each.get("command", "")]
    assert [each["environment"]["MLFLOW_DISABLE_TELEMETRY"] for each in servers] == ["true"]


@pytest.mark.slow
def test_stages_up_to_evaluate_write_in_the_project_alone(watched):
    kept = {name: watched.environment[name] for name in ("HOME", "TMPDIR", "WATCHED_LOG", "WATCHED_FOLDER")}
    repository = tiny_pipeline.create(watched.home.parent / "project", PYTHONDONTWRITEBYTECODE="1", **kept)
    (repository.folder / "src/sitecustomize.py").write_text(SITE)
    ran = tiny_pipeline.stages_run(tiny_pipeline.repro(repository, "evaluate"))
    assert ran == ["download", "preprocess", "brains", "split", "train", "evaluate"]
    assert watched.seen() == []
