"""``python -m brainseg.experiments.running.node``: one experiment on a node, in the snapshot's files.

The node's folder has a cache of DVC's for all trainings on it, and their checkpoints, which outlive this process: a
training that is begun again on this node goes on from the last one.
"""

import contextlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from filelock import FileLock

from brainseg import config
from brainseg.data import inputs
from brainseg.errors import MachineError
from brainseg.experiments import planning, repro, revision
from brainseg.experiments.running import cached, local, runner, snapshot
from brainseg.experiments.running.runner import PREPARED, Training, TrainingError

POLLED = 1.0  # seconds between two looks at whether anybody still waits for this process
FETCHED = 1800.0  # seconds that a DVC remote has for the data
DVC = [sys.executable, "-m", "dvc"]


class Order(NamedTuple):
    """What a node is asked to do.

    ``snapshot``: the commit; ``below``: the project in it, where this process begins; ``data``: MD5s of the outs that
    it needs, by their path; ``stages``: those that run; ``versions``: of packages, where the trainings are collected;
    ``environment``: variables that are set, or removed (None); ``home``: the node's folder.
    """

    name: str
    overrides: dict[str, Any]
    snapshot: str
    below: str
    data: dict[str, str]
    stages: list[str]
    versions: dict[str, str]
    environment: dict[str, str | None]
    home: str = ""


def choose_stages(root: Path) -> tuple[list[str], dict[str, str]]:
    """The stages that nodes run, all but those that prepare data; and the data that they need: MD5s by their path."""
    declared = config.read_yaml(root / "dvc.yaml")["stages"]
    made_by = {path: name for name, stage in declared.items() for path in planning.list_outs(stage)}
    above, waiting = set[str](), list(PREPARED)
    while waiting:
        makers = {made_by[dep] for dep in declared[waiting.pop()].get("deps", []) if dep in made_by}
        waiting += makers - above - set(PREPARED)
        above |= makers - set(PREPARED)
    stages = [name for name in declared if name not in above]
    needed = {dep for name in stages for dep in declared[name].get("deps", []) if made_by.get(dep) in above}
    needed |= {path for name in PREPARED for path in planning.list_outs(declared[name])}
    made = inputs.read_lock(root)
    return stages, {path: made[path] for path in sorted(needed)}


class Wire:
    """What the task that started this process is told. Whatever else prints, prints on stderr."""

    def __init__(self) -> None:
        self._stream: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, **told: Any) -> None:
        print(json.dumps(told), file=self._stream, flush=True)


def main() -> None:
    wire, order = Wire(), Order(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    with contextlib.suppress(runner.RunError), runner.stoppable(order.name):
        run(order, Path.cwd(), Path(order.home), wire)


def _end_with(parent: int) -> None:
    """End this process and its training when nobody waits for them: Ray kills its own processes alone."""
    while os.getppid() == parent:
        time.sleep(POLLED)
    local.end_groups()
    os._exit(1)


def run(order: Order, project: Path, home: Path, wire: Wire) -> None:
    """Run the experiment and send its results: ``{"end": code}``, or ``{"need": [md5, ...]}`` if data is missing."""
    if other := find_other_versions(order.versions):
        wire.say(warn=f"has other versions of {', '.join(other)}, which may give other numbers")
    cache = home / "cache"
    with FileLock(home / "prepare.lock"):
        configure(project, cache)
        snapshot.forget(project, order.snapshot, order.name)
        local.end_leftovers(project, re.compile(re.escape(order.name)))
        repro.wait_for_orphans(project)
        with contextlib.suppress(MachineError):  # else another training of this node runs, and has cleaned up
            repro.refuse_running(project)
            repro.clean_up(project)
        if missing := cached.find_missing(cache, order.data.values()):
            wire.say(state="data")
            if not fetch(project, [path for path, md5 in order.data.items() if md5 in missing]):
                wire.say(warn=f"the DVC remote did not end within {FETCHED:g} s; data comes through Ray instead")
            missing = cached.find_missing(cache, order.data.values())
    if missing:
        wire.say(need=missing)
        return
    begun, training = time.time(), Training(order.name, order.overrides, home / "trainings")
    try:
        local.execute(
            training, project, lambda seen: False, {}, is_over=threading.Event(), stages=order.stages,
            hear=lambda line: wire.say(line=line),
        )  # fmt: skip
    except TrainingError as error:
        wire.say(end=error.ended_with)
        return
    send(order, project, home, wire, begun)
    wire.say(end=0)


def configure(project: Path, cache: Path) -> None:
    """Let DVC's cache here be that of the node."""
    settings = project / ".dvc/config.local"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")


def fetch(project: Path, paths: list[str]) -> bool:
    """Let DVC fetch outs from its remote, if the project names one. What it does not get comes from elsewhere.

    Returns:
        False if it took too long: meanwhile no training of this node can begin.
    """
    named = subprocess.run([*DVC, "config", "core.remote"], cwd=project, capture_output=True, text=True)
    if named.stdout.strip():
        try:
            subprocess.run([*DVC, "--wait-for-lock", "fetch", *paths], cwd=project, stdout=sys.stderr, timeout=FETCHED)
        except subprocess.TimeoutExpired:
            return False
    return True


def find_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def find_other_versions(wanted: Mapping[str, str]) -> list[str]:
    """``["keras 3.14 (3.15.1 there)"]``: packages whose versions here are other ones."""
    here = find_versions(wanted)
    others = {name: version for name, version in wanted.items() if here.get(name) != version}
    return [f"{name} {here.get(name, 'none')} ({version} there)" for name, version in others.items()]


def send(order: Order, project: Path, home: Path, wire: Wire, begun: float) -> None:
    """Send what a run here would have left: results in DVC's cache, what it notes of runs, and the experiment."""
    cache = home / "cache"
    made = inputs.list_outs(config.parse_yaml(revision.reader(order.name, project)("dvc.lock"), "dvc.lock"))
    new = [md5 for md5 in made.values() if md5 not in order.data.values()]
    for md5 in cached.list_objects(cache, new):
        wire.say(send=cached.name(md5), **{"from": str(cache / cached.name(md5))})
    for path in cached.list_runs(cache, begun):
        wire.say(send=path, **{"from": str(cache / path)})
    bundle = home / "trainings" / f"{order.name}.bundle"
    bundle.write_bytes(snapshot.pack_experiment(project, order.snapshot, order.name))
    wire.say(send="bundle", **{"from": str(bundle)})


if __name__ == "__main__":
    main()
