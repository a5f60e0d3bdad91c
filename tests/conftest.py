"""One engine for the whole run, and a project root of its own for every test."""

import gc
import os

# Until all tests are collected there is no garbage, and what is there then stays: to look through it again and again
# takes a tenth of the time of the fast tests.
gc.disable()

# Before NumPy is imported, here and in the processes that are started: one thread each, as there is one for each core.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import shutil  # noqa: E402

import pytest  # noqa: E402

from brainseg import errors  # noqa: E402
from brainseg.tracking import run_store  # noqa: E402
from tests.support import engine, shared  # noqa: E402


def pytest_configure(config):
    if config.getoption("numprocesses", None):  # the process that hands the tests out runs none
        gc.enable()
    else:
        engine.start()


def pytest_collection_finish():
    """Fewer collections: tests build and drop whole graphs."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def shared_folders(tmp_path_factory, request):
    """Made before all other fixtures, which may ask for a shared folder."""
    worker = getattr(request.config, "workerinput", {"workerid": "master"})["workerid"]
    shared.use(tmp_path_factory, worker)


@pytest.fixture(autouse=True)
def project_root(tmp_path, monkeypatch):
    """Keeps checkpoints, error lists and trackers of a test out of the real project.

    What a test did not wait for would let the next one that calls ``errors.run`` end this process.
    """
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.setattr(errors, "_left", [])
    return root


@pytest.fixture(scope="session")
def empty_store():
    """A store whose tables are made, which takes seconds."""
    import mlflow

    def make(folder):
        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()

    return shared.folder("mlflow", make) / "mlflow.db"


@pytest.fixture
def no_settings(monkeypatch):
    """MLflow itself sets its address in the environment: undo that after the test."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_EXP_NAME", *run_store.SETTINGS):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def client(project_root, empty_store):
    """The project's own store."""
    import mlflow

    shutil.copy(empty_store, project_root / "mlflow.db")
    return mlflow.MlflowClient(f"sqlite:///{project_root}/mlflow.db")
