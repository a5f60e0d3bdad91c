"""The real pipeline on tiny phantoms: a project in which nothing has run, the same after an undisturbed run, copies."""

import compileall
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.support import tiny_pipeline, toy_pipeline

TIMEOUT = 900  # seconds; what takes longer hangs
QUICK = tiny_pipeline.TINY | {
    "train": {"epochs": 4, "batch_size": 8, "ema": 0.5},
    "render": {"patients": 2, "dpi": 60},
}
LEARNED = QUICK | {  # outlines tumours, so that a change of the network changes answers
    "train": {"epochs": 60, "batch_size": 8, "ema": 0.9, "learning_rate": 0.01},
    "network": {"filters": 8, "depth": 2},
}
UNUSED = ("weights", "web", "docs", "notebooks", "benchmarks", "metrics")  # of the copy, which makes its own metrics
RESULTS = ("data", "models", "metrics", "dvc.lock")


class Undisturbed(NamedTuple):
    """``empty``: committed, nothing has run; ``done``: after a run, committed; ``seconds`` and digests of that run."""

    empty: Path
    done: Path
    seconds: float
    digests: dict[str, str]


class Finished(NamedTuple):
    """A process that has ended; code: -9 after SIGKILL, None where it had to be stopped after TIMEOUT."""

    code: int | None
    output: str
    errors: str

    @property
    def error_lines(self) -> list[str]:
        """What the program says is wrong: its lines of errors and warnings."""
        return [line for line in self.text.splitlines() if line.lstrip().startswith(("ERROR", "WARNING"))]

    @property
    def text(self) -> str:
        return self.output + self.errors

    @property
    def is_bug(self) -> bool:
        return "this is a bug" in self.text or "Traceback (most recent call last)" in self.text


def make(work: Path, changes: dict = QUICK) -> Undisturbed:
    """Build both projects below ``work``, with these parameters."""
    empty, done = work / "empty", work / "done"
    repository = tiny_pipeline.create(empty, changes)
    for name in UNUSED:
        shutil.rmtree(empty / name, ignore_errors=True)
    tiny_pipeline.commit(repository)
    compileall.compile_dir(empty / "src", quiet=1)  # as of a project that has been used; each process would do it else
    copy(empty, done)
    print("the undisturbed run", flush=True)
    start = time.monotonic()
    finished = brainseg(done, "repro")
    seconds = time.monotonic() - start
    if finished.code:
        sys.exit(f"the undisturbed run failed:\n{finished.text}")
    tiny_pipeline.commit(toy_pipeline.Repository(done))
    print(f"took {seconds:.0f} s", flush=True)
    return Undisturbed(empty, done, seconds, digests(done))


def copy(source: Path, target: Path) -> Path:
    """A copy with the times of the files."""
    shutil.copytree(source, target, symlinks=True)
    return target


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from brainseg.cli import main; main()", *arguments]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a process that runs the copy's own code, with nothing of this user."""
    return toy_pipeline.environment(folder.parent) | {"PYTHONPATH": str(folder / "src")} | more


def brainseg(folder: Path, *arguments: str, **more: str) -> Finished:
    return run(folder, command(*arguments), **more)


def stage(folder: Path, name: str, **more: str) -> Finished:
    return run(folder, [sys.executable, f"stages/{name}.py"], **more)


def run(folder: Path, words: list[str], **more: str) -> Finished:
    """Run a command in the project to its end."""
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment(folder, **more), capture_output=True, timeout=TIMEOUT, errors="replace",
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Finished(None, "", f"still running after {TIMEOUT} s")
    return Finished(done.returncode, done.stdout, done.stderr)


def digests(folder: Path, names: Iterable[str] = RESULTS) -> dict[str, str]:
    """Path → SHA-256 of every file of the results, of temporaries too, which must not be left."""
    paths = [path for name in names for path in (folder / name, *sorted((folder / name).rglob("*"))) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def differences(expected: dict[str, str], found: dict[str, str]) -> str:
    """The files that are missing, new or different, empty if there are none."""
    names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    words = [f"{name} {'is missing' if name not in found else 'is new' if name not in expected else 'differs'}"
             for name in names]  # fmt: skip
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def dump(content: object) -> str:
    return json.dumps(content, sort_keys=True)
