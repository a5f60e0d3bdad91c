"""One engine for the whole run, and a project root of its own for every test."""

import shutil

import pytest

from brainseg.models import backend
from brainseg.tracking import mlflow_runs


def pytest_configure(config):
    backend.start("tensorflow", threads=2, device="cpu", precision="float32")


@pytest.fixture(autouse=True)
def project_root(tmp_path, monkeypatch):
    """Keeps checkpoints, error lists and trackers of a test out of the real project."""
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(root))
    return root


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store whose tables are made, which takes seconds."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def no_settings(monkeypatch):
    """MLflow itself sets its address in the environment: undo that after the test."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_EXP_NAME", *mlflow_runs.SETTINGS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def client(project_root, empty_store):
    """The project's own store."""
    import mlflow

    shutil.copy(empty_store, project_root / "mlflow.db")
    return mlflow.MlflowClient(f"sqlite:///{project_root}/mlflow.db")
