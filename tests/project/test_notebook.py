"""notebooks/tour.ipynb: committed with what its cells show, gentle with Colab, and it runs from end to end."""

import ast
import base64
import copy
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

from brainseg import config, files
from brainseg.io import pictures
from brainseg.models import manifest, networks
from tests.support import run_files
from tools import copy_released, run_notebook

ROOT = Path(__file__).parents[2]
# All that the tour reads of the project, the model apart.
PROJECT = ("params.yaml", "notebooks/tour.ipynb", "metrics/evaluation.json")
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


def shown(notebook: nbformat.NotebookNode) -> dict[str, np.ndarray]:
    """The picture of each cell that shows one."""
    encoded = {
        cell.id: output.data["image/png"]
        for cell in code(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    }
    return {name: pictures.decode(base64.b64decode(each), f"{name}.png") for name, each in encoded.items()}


def printed(notebook: nbformat.NotebookNode) -> dict[str, str]:
    return {cell.id: "".join(output.get("text", "") for output in cell.outputs) for cell in code(notebook)}


def test_committed_as_the_tool_writes_it(tour):
    """Random cell ids, another kernel's name or the time of a run would make every diff unreadable."""
    text = (ROOT / "notebooks/tour.ipynb").read_text(encoding="utf-8")
    assert all(cell.metadata == {} and re.fullmatch(r"[a-z][a-z-]+", cell.id) for cell in tour.cells)
    again = copy.deepcopy(tour)
    run_notebook.clean(again)
    assert nbformat.writes(again) + "\n" == text, "run: make notebook"


def test_its_outputs_are_of_its_code(tour):
    assert tour.metadata.executed.sha256 == run_notebook.digest(tour), "a cell was changed since; run: make notebook"
    assert [cell.execution_count for cell in code(tour)] == list(range(1, len(code(tour)) + 1))
    assert not [cell.id for cell in code(tour) for output in cell.outputs if output.output_type == "error"]


def test_it_shows_small_pictures(tour):
    """GitHub shows no notebook of several megabytes, and each change of one stays in the repository for good."""
    assert (ROOT / "notebooks/tour.ipynb").stat().st_size < 700_000
    found = shown(tour)
    assert set(found) == PICTURES
    for name, picture in found.items():
        assert min(picture.shape[:2]) > 200 and picture.shape[1] <= run_notebook.WIDTH and np.std(picture) > 10, name
    assert "trained on 77 patients" in printed(tour)["released"]


def test_no_path_of_a_machine(tour):
    assert ABSOLUTE.search('Path("/home/me")') and ABSOLUTE.search('"/content/brainseg"')
    for cell in tour.cells:
        told = [
            output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", ())
        ]
        for text in (cell.source, *told):
            assert not ABSOLUTE.search(text), f"{cell.id}: {ABSOLUTE.search(text)}"


def test_the_badge_opens_this_notebook_in_colab(tour, monkeypatch):
    """From the repository that its first cell clones; the README's badge, too."""
    monkeypatch.chdir(ROOT)
    repository = run_setup(tour, monkeypatch)[0]["REPOSITORY"].removeprefix("https://github.com/")
    page = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/tour.ipynb"
    badge = rf"\[!\[[^]]+\]\(https://colab\.research\.google\.com/assets/colab-badge\.svg\)\]\(({re.escape(page)})\)"
    assert re.search(badge, source(tour, "title"))
    addresses = re.findall(r"https://colab\.[^)\s]*ipynb", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(addresses) <= {page}


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
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
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
    found, (clone, light, package, model) = run_setup(tour, monkeypatch)
    assert clone[:2] == ["git", "clone"] and found["REPOSITORY"] in clone
    assert light[-len(found["LIGHT"]) :] == found["LIGHT"]
    assert package[-3:] == ["--no-deps", "--editable", str(tmp_path / "brainseg")]
    assert sys.path[0] == str(tmp_path / "brainseg" / "src")
    assert model[1:3] == ["tools/copy_released.py", "models"]


def test_colab_gets_the_released_model_without_dvc(tour, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    command = run_setup(tour, monkeypatch)[1][-1]
    copied = copy_released.copy(ROOT, tmp_path / "models", command[3:])
    assert {path.name for path in copied} == set(re.findall(r"unet\.[\w.]+", source(tour, "released")))


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
    project = tmp_path_factory.mktemp("tour")
    for name in PROJECT:
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    release(project / "models")
    return project


@pytest.mark.slow
def test_the_tour_runs_and_shows_pictures(tour, folder, project_root, tmp_path, monkeypatch):
    """Minutes: every cell, in a copy in which nothing may change. The executed notebook stays in tmp_path."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = copy.deepcopy(tour)
    run_notebook.execute(done, folder / "notebooks/tour.ipynb")
    run_notebook.clean(done)
    nbformat.write(done, tmp_path / "executed.ipynb")

    assert {name: each.shape for name, each in shown(done).items()} == {k: v.shape for k, v in shown(tour).items()}
    told, committed = printed(done), printed(tour)
    assert re.search(r"by hand: .* = (\S+)\nevaluation: \1\n", told["on-paper"])
    assert float(re.search(r"volume Dice +(\S+)", told["evaluation"])[1]) > 0.6  # pictures worth looking at
    assert {k: v.count("\n") for k, v in told.items()} == {k: v.count("\n") for k, v in committed.items()}, (
        "make notebook"
    )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not any(project_root.iterdir())
