"""What the tests make once in a run, however many processes pytest-xdist starts."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

_places: list[Path] = []


def use(factory: pytest.TempPathFactory, worker: str) -> None:
    """Keep shared folders in the temporary folder of the run. ``worker``: as in pytest-xdist, "master" without it."""
    place = factory.getbasetemp()
    _places[:] = [place if worker == "master" else place.parent]


def folder(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of this name. The first process that asks calls ``make`` with a new folder, the others wait for it.

    Nobody writes into it afterwards.
    """
    made = _places[0] / f"shared-{name}"
    with FileLock(made.with_suffix(".lock")):
        if not made.exists():
            unfinished = made.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that failed
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(made)
    return made
