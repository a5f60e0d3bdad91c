"""notebooks/tour.ipynb: committed clean, gentle with Colab, and it runs from the first cell to the last."""

import ast
import base64
import functools
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from brainseg import config, files
from brainseg.io import pictures
from brainseg.models import manifest, networks
from tests.support import run_files

ROOT = Path(__file__).parents[2]
PROJECT = ("params.yaml", "notebooks/tour.ipynb")  # all that the tour reads of the project, the model apart
ON_COLAB = {"numpy", "opencv-python-headless", "pillow", "urllib3"}  # Colab's own, not to be replaced
PICTURES = {"slices", "augmentation", "curves", "gallery", "own-outline", "released"}
ABSOLUTE = re.compile(r"""(?<![\w.:/*$~{}])/[a-z]+\w*/|[A-Z]:\\|~/|file://|localhost""")


@pytest.fixture(scope="module")
def tour() -> nbformat.NotebookNode:
    notebook = nbformat.read(ROOT / "notebooks/tour.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def source(notebook: nbformat.NotebookNode, name: str) -> str:
    return next(cell.source for cell in notebook.cells if cell.id == name)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_committed_without_outputs(tour):
    """Outputs would make every diff unreadable; random cell ids and another kernel's name, too."""
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(tour))
    assert all(cell.metadata == {} and re.fullmatch(r"[a-z][a-z-]+", cell.id) for cell in tour.cells)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert tour.metadata == {"kernelspec": kernel, "language_info": {"name": "python"}}
    assert (ROOT / "notebooks/tour.ipynb").read_text(encoding="utf-8") == nbformat.writes(tour) + "\n"


def test_no_path_of_a_machine(tour):
    assert ABSOLUTE.search('Path("/home/me")') and ABSOLUTE.search('"/content/brainseg"')
    for cell in tour.cells:
        assert not ABSOLUTE.search(cell.source), f"{cell.id}: {ABSOLUTE.search(cell.source)}"


def test_every_name_it_uses_of_the_package_is_there(tour):
    """Found without running it: a function renamed in src/ is renamed here, too, and gets the arguments it takes."""
    tree = ast.parse("\n".join(cell.source for cell in code(tour)))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "brainseg" in str(node.module)]
    names = {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    modules = {name: importlib.import_module(place) for name, place in names.items()}
    assert len(modules) > 15
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), ast.unparse(node)
    calls = [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for name, call in [(name, call) for name, call in calls if re.fullmatch(r"\w+(\.\w+)+", name)]:
        module, *attributes = name.split(".")
        if module not in modules:
            continue
        function = functools.reduce(getattr, attributes, modules[module])
        inspect.signature(function).bind(*call.args, **{keyword.arg: None for keyword in call.keywords})


def test_the_settings_are_valid_and_small(tour, tmp_path):
    """The very cell, up to where the engine starts."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    cell = source(tour, "settings").split("t = params.train")[0]
    found = {"PROJECT": ROOT, "WORK": tmp_path}
    exec(compile(cell, "settings", "exec"), found)
    params = found["params"]
    assert params.download.source == "phantom" and params.train.epochs <= 20 and params.preprocess.size <= 128


def run_setup(tour, monkeypatch) -> tuple[dict, list[list[str]]]:
    """The first cell in this process; the commands that it would run are only written down."""
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    monkeypatch.setattr(sys, "path", list(sys.path))
    found: dict = {}
    exec(compile(source(tour, "setup"), "setup", "exec"), found)
    return found, commands


def test_at_home_it_installs_nothing(tour, tmp_path, monkeypatch):
    (tmp_path / "params.yaml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    found, commands = run_setup(tour, monkeypatch)
    assert commands == [] and found["PROJECT"] == tmp_path


def test_in_colab_it_leaves_tensorflow_alone(tour, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    found, (clone, light, package) = run_setup(tour, monkeypatch)
    assert clone[:2] == ["git", "clone"] and found["REPOSITORY"] in clone
    assert found["REPOSITORY"].removeprefix("https://github.com/") in source(tour, "title")
    assert light[-len(found["LIGHT"]) :] == found["LIGHT"]
    assert package[-3:] == ["--no-deps", "--editable", str(tmp_path / "brainseg")]
    assert sys.path[0] == str(tmp_path / "brainseg" / "src")


def test_colab_gets_what_the_package_needs_and_no_more(tour, monkeypatch):
    """With --no-deps nobody else would: a dependency added to pyproject.toml belongs into the first cell."""
    monkeypatch.chdir(ROOT)
    found, _ = run_setup(tour, monkeypatch)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(found["LIGHT"]) == {needed.split(">=")[0] for needed in project["dependencies"]} - ON_COLAB


def test_without_a_released_model_it_says_how_to_get_one(tour, tmp_path, capsys):
    exec(compile(source(tour, "released"), "released", "exec"), {"PROJECT": tmp_path})
    assert "make pull" in capsys.readouterr().out


def release(models: Path) -> None:
    """An untrained network in the place of the released one."""
    models.mkdir()
    params = config.load("network", path=ROOT / "params.yaml").network.model_copy(update={"filters": 2, "depth": 1})
    network = networks.build(params, 64, 3)
    network.save_weights(models / "unet.weights.h5")
    model = run_files.manifest(
        network=params.model_dump(),
        weights_sha256=files.sha256(models / "unet.weights.h5"),
        contract={"size": [64, 64]},
    )
    manifest.write(models / "unet.json", manifest.Manifest.model_validate(model))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of what the tour reads, with a model."""
    copy = tmp_path_factory.mktemp("tour")
    for name in PROJECT:
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    release(copy / "models")
    return copy


@pytest.mark.slow
def test_the_tour_runs_and_shows_pictures(tour, folder, project_root, tmp_path, monkeypatch):
    """Minutes: every cell, in a copy in which nothing may change. The executed notebook stays in tmp_path."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = nbformat.from_dict(tour)
    place = {"metadata": {"path": str(folder / "notebooks")}}
    NotebookClient(done, timeout=1500, startup_timeout=120, kernel_name="python3", resources=place).execute()
    nbformat.write(done, tmp_path / "executed.ipynb")

    outputs = [(cell.id, output) for cell in code(done) for output in cell.outputs]
    assert not [output for _, output in outputs if output.output_type == "error"]
    shown = {name: output.data["image/png"] for name, output in outputs if "image/png" in output.get("data", {})}
    assert set(shown) == PICTURES
    for name, encoded in shown.items():
        picture = pictures.decode(base64.b64decode(encoded), f"{name}.png")
        assert min(picture.shape[:2]) > 200 and np.std(picture) > 10, name

    printed = {cell.id: "".join(output.get("text", "") for output in cell.outputs) for cell in code(done)}
    assert re.search(r"by hand: .* = (\S+)\nevaluation: \1\n", printed["on-paper"])
    assert float(re.search(r"volume Dice +(\S+)", printed["evaluation"])[1]) > 0.6  # pictures worth looking at
    assert "trained on 77 patients" in printed["released"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not any(project_root.iterdir())
