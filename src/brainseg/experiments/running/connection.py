"""A connection to a Ray cluster, or a Ray on this machine, and what its nodes have room for."""

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from brainseg import config, errors, hardware
from brainseg.errors import DataError, MachineError
from brainseg.experiments.running import node_task
from brainseg.experiments.running.runner import Place

ANSWER_SECONDS, CONNECT_SECONDS = 10.0, 90.0


class Share(NamedTuple):
    """Processors and GPUs that a training takes of a node."""

    cpus: float
    gpus: float


def check(address: str | None) -> tuple[Any, str]:
    """Ray, and the address that it will connect to: without one (``RAY_ADDRESS`` is one) ``local``.

    Raises:
        MachineError: it is not installed, or the address does not answer. DataError: the address is of another kind.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ModuleNotFoundError:
        raise errors.lack_library("--on ray", "Ray", "cluster") from None
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address not in ("auto", "local"):
        _ask(address)
    return ray, address


def connect(address: str | None) -> Any:
    """Ray, connected to a cluster, or started here without an address. No usage is reported.

    Raises:
        MachineError, DataError: see ``check``; or it does not connect.
    """
    ray, address = check(address)
    start = partial(ray.init, address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        if address == "local":  # in this thread: what Ray starts ends with the thread that has started it
            _keep_signals(partial(start, num_cpus=hardware.processors(), include_dashboard=False))
        else:
            errors.limit(CONNECT_SECONDS, start)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        what = f"Ray does not connect: {' '.join(str(error).split())}"
        raise MachineError(address, what, _advise(address)) from None
    ray.cloudpickle.register_pickle_by_value(node_task)  # a node has no file of this project
    return ray


def _keep_signals(start: Callable[[], Any]) -> None:
    """Start Ray, whose handler of SIGTERM would end this process without a word: the one before is set again."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        start()
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _ask(address: str) -> None:
    """Refuse an address where nobody listens; Ray would try for minutes."""
    if address.startswith("ray://"):
        fix = "run this on a machine of the cluster, with --address auto (docs/how-to/cluster.md)"
        raise DataError(address, "is of Ray's client, which does not tell how trainings go", fix)
    found = re.fullmatch(r"\[?([^\s\]]+?)\]?:(\d{1,5})", address)
    if not found:
        raise DataError(address, "is no address of a Ray cluster", "write HOST:PORT, as ray start prints it, or auto")
    try:
        socket.create_connection((found[1], int(found[2])), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise MachineError(address, f"does not answer ({error})", _advise(address)) from None


def _advise(address: str) -> str:
    if address == "local":
        return "see what it says; Ray keeps its own logs in /tmp/ray/session_latest/logs"
    there = "ray start --head --port=6379" if address == "auto" else f"ray start --address={address}"
    return (
        f"start a cluster (ray start --head --port=6379), make this machine one of its nodes ({there}), with the same "
        "Python and Ray on each; or leave out --address for a Ray on this machine alone"
    )


def choose_share(nodes: Sequence[Mapping[str, float]], place: Place, train: config.Train) -> Share:
    """What a training takes of a node, if the place does not say.

    A GPU where there are any, and its part of that node's processors; else the processors of its threads; else all of
    the smallest node, whose cores ``train.threads: auto`` uses.
    """
    cards = [node for node in nodes if node.get("GPU")]
    gpus = place.gpus if place.gpus is not None else float(bool(cards) and train.device != "cpu")
    if place.cpus is not None:
        return Share(place.cpus, gpus)
    if gpus and cards:
        return Share(max(1, min(node.get("CPU", 0) / node["GPU"] for node in cards) * gpus // 1), gpus)
    if train.threads != "auto":
        return Share(train.threads, gpus)
    return Share(min((node["CPU"] for node in nodes if node.get("CPU")), default=1), gpus)


def count_room(nodes: Sequence[Mapping[str, float]], share: Share) -> int:
    """How many trainings the nodes have room for.

    Raises:
        MachineError: none.
    """
    wanted = {"CPU": share.cpus, "GPU": share.gpus}
    parts = [[node.get(name, 0) / amount for name, amount in wanted.items() if amount] for node in nodes]
    if room := sum(int(min(each, default=1)) for each in parts):
        return room
    most = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
    what = f"no node has {share.cpus:g} CPUs and {share.gpus:g} GPUs, which a training is to take"
    has = f"the largest has {most.get('CPU', 0):g} and {most.get('GPU', 0):g}"
    raise MachineError("Ray", f"{what}; {has}", "give --cpus and --gpus, or --jobs N to wait for nodes that come later")
