"""Who runs trainings: this machine or Ray."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainseg import config
from brainseg.errors import DataError
from brainseg.experiments.running.local import LocalRunner
from brainseg.experiments.running.runner import Place, Runner


def check(place: Place) -> None:
    """Refuse a place before anything is done for it.

    Raises:
        DataError: something is asked of Ray, and Ray is not. MachineError: Ray is not installed, or does not answer.
    """
    if place.on == "here":
        given = {"--address": place.address, "--cpus": place.cpus, "--gpus": place.gpus}
        if named := [option for option, value in given.items() if value is not None]:
            raise DataError(" ".join(named), "is for a Ray cluster", "add --on ray")
        return
    from brainseg.experiments.running import connection

    connection.check(place.address)


def create(place: Place, root: Path, params: Mapping[str, Any]) -> Runner:
    """The runner of a place. ``params``: those of the trainings, as far as all have the same."""
    if place.on == "here":
        return LocalRunner(root, place.jobs or 1)
    from brainseg.experiments.running.cluster import RayRunner

    return RayRunner(root, place, config.Train(**params["train"]))
