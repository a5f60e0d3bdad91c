"""The real pipeline on phantoms so small that all of it takes about a minute."""

from pathlib import Path

from brainseg.experiments import demo
from tests.support.toy_pipeline import Repository

PROJECT = Path(__file__).parents[2]
TINY = {
    "download": {"source": "phantom"},
    "phantom": {"patients": 10, "slices": 6, "size": 64},
    "preprocess": {"size": 64},
    "train": {"epochs": 2, "batch_size": 8, "ema": 0.5},
    "network": {"filters": 4, "depth": 2},
    "evaluate": {"bootstrap": 100},
    "render": {"patients": 3},
}


def create(folder: Path, changes: dict = TINY, **more: str) -> Repository:
    """A repository of one commit with the tracked tree and these parameters; nothing is run yet."""
    demo.copy_tracked(PROJECT, folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    demo.override(folder / "params.yaml", changes)
    repository = Repository(folder, **more)
    repository.environment["PYTHONPATH"] = ""  # the copy runs its own code
    repository.git("init", "--quiet")
    commit(repository)
    return repository


def commit(repository: Repository) -> None:
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--allow-empty", "--message", "state")


def repro(repository: Repository, *arguments: str, command: tuple[str, ...] = ("repro",)) -> str:
    code, output = repository.dvc(*command, *arguments)
    assert code == 0, output
    return output


def stages_run(output: str) -> list[str]:
    """Names of the stages that DVC ran, in order."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


def results(repository: Repository) -> dict[str, bytes]:
    """Every result by its path: metrics, plots, report, weights, manifest, lock."""
    folder = repository.folder
    paths = [*folder.glob("metrics/**/*"), *folder.glob("models/unet*"), folder / "dvc.lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}
