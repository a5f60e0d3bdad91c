"""Who runs trainings: this machine or Ray."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainseg import config
from brainseg.errors import DataError
from brainseg.experiments.running.local import LocalRunner
from brainseg.experiments.running.runner import Place, Runner


def check(place: Place, params: Mapping[str, Any]) -> None:
    """Refuse a place before anything is done for it. ``params``: see ``create``.

    Raises:
        DataError: something is asked of Ray, and Ray is not; or it is asked what it cannot do.
        MachineError: Ray is not installed, or does not answer.
    """
    if place.on == "here":
        given = {"--address": place.address, "--cpus": place.cpus, "--gpus": place.gpus}
        if named := [option for option, value in given.items() if value is not None]:
            raise DataError(" ".join(named), "is for a Ray cluster", "add --on ray")
        return
    if place.gpus is not None and place.gpus > 1 and place.gpus % 1:
        raise DataError("--gpus", f"is {place.gpus:g}: Ray divides one GPU, not several", "write 0.5, 1 or 2, say")
    if place.cpus == 0 and not place.gpus:
        raise DataError("--cpus", "is 0, and no GPU is asked for: nothing limits how many run", "write --cpus 1")
    for key in config.list_named(params["train"]):
        what = "names a file that nodes do not have, or have with other content"
        raise DataError(key, what, f"leave out --on ray, or set {key}: null")
    from brainseg.experiments.running import connection

    connection.check(place.address)


def create(place: Place, root: Path, params: Mapping[str, Any]) -> Runner:
    """The runner of a place. ``params``: those of the trainings, as far as all have the same."""
    if place.on == "here":
        return LocalRunner(root, place.jobs or 1)
    from brainseg.experiments.running.cluster import RayRunner

    return RayRunner(root, place, config.Train(**params["train"]))
