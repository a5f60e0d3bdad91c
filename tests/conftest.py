"""One engine for the whole run, and a project root of its own for every test."""

import pytest

from brainseg import engine


def pytest_configure(config):
    engine.start("tensorflow", threads=2, device="cpu", precision="float32")


@pytest.fixture(autouse=True)
def project_root(tmp_path, monkeypatch):
    """Keeps checkpoints, error lists and trackers of a test out of the real project."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(root))
    return root
