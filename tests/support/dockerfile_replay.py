"""A Dockerfile's steps as commands in a folder, where no container engine runs.

What the steps call `/opt` and `/build` lies below the folder, a `/build` for each stage; the base images' programs are
this machine's. Users are not made.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Stage(NamedTuple):
    """``steps``: (instruction, its text), as written."""

    name: str
    steps: list[tuple[str, str]]


def parse(text: str) -> list[Stage]:
    """The stages of a Dockerfile; lines that end in a backslash are joined."""
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, lines)):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            stages.append(Stage(rest.split(" AS ")[1] if " AS " in rest else "last", []))
        else:
            stages[-1].steps.append((word, rest))
    return stages


class Replay:
    """Runs the stages of ``context``/Dockerfile; afterwards ``command`` starts what the image would."""

    def __init__(self, context: Path, root: Path):
        self.context, self.root = context, root
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(root), "LANG": "C.UTF-8"}
        self.environment |= {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "npm_", "SSL"))
        }
        self.health, self.command, self.user, self.place = [], [], None, root
        binaries = root / "bin"
        binaries.mkdir(parents=True)
        (binaries / "python").symlink_to(sys.executable)
        self.environment["PATH"] = f"{binaries}:{self.environment['PATH']}"

    def run(self) -> None:
        for stage in parse((self.context / "Dockerfile").read_text(encoding="utf-8")):
            self.place = self.root
            for word, rest in stage.steps:
                getattr(self, f"_{word.lower()}", lambda stage, rest: None)(stage.name, rest)

    def path(self, stage: str, name: str) -> Path:
        """Where a path of the image lies."""
        if name.startswith("/opt"):
            return self.root / name[1:]
        return self.root / stage / name[1:] if name.startswith("/") else self.place / name

    def here(self, stage: str, text: str) -> str:
        return text.replace("/opt/brainseg", str(self.root / "opt/brainseg")).replace(
            "/build", str(self.root / stage / "build")
        )

    def _workdir(self, stage: str, rest: str) -> None:
        self.place = self.path(stage, rest)
        self.place.mkdir(parents=True, exist_ok=True)

    def _copy(self, stage: str, rest: str) -> None:
        words = shlex.split(rest)
        origin = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
        *sources, target = words
        out = self.path(stage, target)
        if target.endswith("/"):
            out.mkdir(parents=True, exist_ok=True)
        for source in sources:
            given = self.path(origin, source) if origin else self.context / source
            if given == out:
                continue
            if given.is_dir():
                shutil.copytree(
                    given, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules", "__pycache__")
                )
            else:
                shutil.copy2(given, out / given.name if out.is_dir() else out)

    def _env(self, stage: str, rest: str) -> None:
        for pair in shlex.split(self.here(stage, rest)):
            name, value = pair.split("=", 1)
            self.environment[name] = value.replace("$PATH", self.environment["PATH"])

    def _run(self, stage: str, rest: str) -> None:
        if rest.startswith("useradd"):
            return
        done = subprocess.run(["sh", "-ec", self.here(stage, rest)], cwd=self.place, env=self.environment,
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, f"{rest}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    def _user(self, stage: str, rest: str) -> None:
        self.user = int(rest)

    def _healthcheck(self, stage: str, rest: str) -> None:
        self.health = json.loads(rest.partition("CMD ")[2])

    def _cmd(self, stage: str, rest: str) -> None:
        self.command = json.loads(rest)
