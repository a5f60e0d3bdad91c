"""A release: all places name one version, and its files come with their digests."""

import hashlib
import shutil
from pathlib import Path

import pytest

from brainseg import __version__, config
from brainseg.errors import DataError
from tools import build_release, build_wheel

ROOT = Path(__file__).parents[2]
TAG = f"v{__version__}"
CHANGELOG = f"""\
# Changelog

## Unreleased

- later

## {__version__} (2026-12-01)

- first
- second

## 0.0.1

- old
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that is ready to be released; its wheel is not built."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("dvc.lock", "CITATION.cff"):
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(ROOT / "weights", folder / "weights")
    (folder / "pyproject.toml").write_text('[project.urls]\nSource = "https://github.com/jane/brainseg"\n')
    (folder / "CHANGELOG.md").write_text(CHANGELOG)
    monkeypatch.setattr(build_wheel, "run", lambda out, root: (out / "a.whl").write_bytes(b"a wheel"))
    return folder


def test_the_files_of_a_release_and_their_digests(project, tmp_path):
    out = tmp_path / "dist"
    said = build_release.run(TAG, out, project)
    models = {"unet.onnx", "unet.int8.onnx", "unet.weights.h5", "unet.json"}
    assert {path.name for path in out.iterdir()} == {"a.whl", "SHA256SUMS", "NOTES.md", *models}
    sums = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in {"a.whl", *models}}
    assert (out / "NOTES.md").read_text() == "- first\n- second\n"
    assert said.startswith(f"{TAG}: a.whl, unet.int8.onnx")
    with pytest.raises(DataError, match="is not empty"):
        build_release.run(TAG, out, project)


def test_all_that_is_not_ready_is_named_at_once(project, tmp_path):
    (project / "CHANGELOG.md").write_text(f"# Changelog\n\n## Unreleased ({__version__})\n")
    (project / "CITATION.cff").write_text("version: 9.9.9\n")
    (project / "pyproject.toml").write_text('[project.urls]\nSource = "https://github.com/OWNER/brainseg"\n')
    with pytest.raises(DataError) as caught:
        build_release.run("v9.9.9", tmp_path / "dist", project)
    named = [problem.path for problem in caught.value.problems]
    assert named == ["src/brainseg/__init__.py", "CITATION.cff", "CHANGELOG.md", "OWNER"]
    assert not (tmp_path / "dist").exists()


def test_the_citation_has_the_version_of_the_package():
    assert str(config.read_yaml(ROOT / "CITATION.cff")["version"]) == __version__
