"""The owner stands in one place and gets everywhere; the notebook's outputs stay those of its code."""

import shutil
from pathlib import Path

import nbformat
import pytest

from brainseg.errors import DataError
from brainseg.experiments import demo
from tools import run_notebook, set_owner

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "brainseg"
    for name in demo.list_tracked(ROOT):
        if (ROOT / name).is_file() and not name.startswith(("weights", "metrics", "tests", "web")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_address_follows_and_the_way_back_restores_every_byte(copy):
    first, before = set_owner.find_owner(copy), contents(copy)
    said = set_owner.run("jane-doe", copy)
    after = contents(copy)
    changed = {path.as_posix() for path in before if before[path] != after[path]}
    assert said == f"jane-doe: {len(changed)} files changed"
    assert {"pyproject.toml", "README.md", "SECURITY.md", "CITATION.cff", "notebooks/tour.ipynb"} <= changed
    assert not any(f"/{first}/brainseg".encode() in text for text in after.values())
    assert set_owner.find_owner(copy) == "jane-doe"
    set_owner.run(first, copy)
    assert contents(copy) == before


def test_the_notebook_keeps_its_outputs(copy):
    """Its digest is that of its code again; of outputs that were stale before, it does not become so."""
    path = copy / "notebooks/tour.ipynb"
    set_owner.run("jane-doe", copy)
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    assert notebook.metadata.executed.sha256 == run_notebook.digest(notebook)
    notebook.metadata.executed.sha256 = "0" * 64
    nbformat.write(notebook, path)
    set_owner.run("someone", copy)
    assert nbformat.read(path, as_version=nbformat.NO_CONVERT).metadata.executed.sha256 == "0" * 64


def test_what_only_looks_like_it_stays(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "pyproject.toml").write_text('[project.urls]\nSource = "https://github.com/src/brainseg"\n')
    text = "src/brainseg/cli.py https://github.com/src/brainseg-other https://github.com/other/brainseg"
    (tmp_path / "a.md").write_text(f"{text} https://raw.githubusercontent.com/src/brainseg/main/a.png\n")
    set_owner.run("me", tmp_path)
    assert (tmp_path / "a.md").read_text() == f"{text} https://raw.githubusercontent.com/me/brainseg/main/a.png\n"


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a--b", "a" * 40, "a b"])
def test_no_owner_is_called_so(name, tmp_path):
    with pytest.raises(DataError, match="no name of an owner"):
        set_owner.run(name, tmp_path)
