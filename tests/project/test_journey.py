"""The README's own lines, typed one after the other: clone, demo, pull, change, compare, queue, show, apply, restore.

They are run as they stand there and in its order, so a line that no longer works fails here, and a new one is run as
well. What is cloned is this tree with tiny parameters. What `make setup` would install is the environment of the tests.
"""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from brainseg import config
from tests.support import tiny_pipeline, toy_pipeline
from tests.support.markdown import blocks
from tests.support.toy_pipeline import Repository

pytestmark = pytest.mark.slow
LEFT_OUT = re.compile(r"make (test|ui|(\w+ )*serve)$")  # these tests, and servers, which do not end
PULL = "make pull"  # alone in a later block of the README; in the first one it is `make pull serve`
MODELS = [f"models/unet.{name}" for name in ("weights.h5", "json", "onnx", "int8.onnx")]
TINY = tiny_pipeline.TINY | {  # it learns enough for its numbers to differ
    "train": {"epochs": 3, "batch_size": 2, "ema": 0.5},
    "network": {"filters": 8, "depth": 2, "stem": 2, "norm": "group"},
}
RESULTS = "params.yaml dvc.lock metrics"  # of a run, in git
EXAMPLES = config.read_yaml(Path(__file__).parents[2] / "examples/patients.zip.dvc")["outs"][0]["md5"]


class Terminal:
    """A shell: what `cd` and `source` do stays for the next line."""

    def __init__(self, home: Path):
        self.home = self.folder = home
        kept = toy_pipeline.environment(home, COLUMNS="250", PYTHONPATH=str(home / "brainseg/src")).items()
        self.environment = {name: value for name, value in kept if not name.startswith(("MAKE", "MFLAGS"))}

    def type(self, line: str) -> str:
        """Run a line and return what it prints.

        Raises:
            AssertionError: it ended with another code than 0.
        """
        state = self.home / "state"
        script = f'{line}\ncode=$?\n{{ pwd; env -0; }} > "{state}"\nexit $code'
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=toy_pipeline.HANGS,
        )  # fmt: skip
        assert done.returncode == 0, f"`{line}` ended with {done.returncode}:\n{done.stdout[-5000:]}"
        folder, _, variables = state.read_text().partition("\n")
        self.folder = Path(folder)
        self.environment = dict(each.partition("=")[::2] for each in variables.split("\0") if each)
        return done.stdout


class Journey:
    """The clone, what was published, and what was true of the clone before the line that was typed last."""

    def __init__(self, terminal: Terminal, published: Repository):
        self.terminal, self.published = terminal, published
        self.commits_before, self.changes_before = dict[str, str](), ""

    def walk(self, line: str) -> None:
        """Type a line of the README, and look whether it did what it is there for."""
        if self.terminal.folder != self.terminal.home:
            self.commits_before, self.changes_before = self.commits(), self.changes()
        output = self.terminal.type(line)
        for pattern, check in LINES.values():
            if re.match(pattern, line):
                check(self, line, output)

    def commits(self) -> dict[str, str]:
        """Of the experiments that ended, by their names: as DVC keeps them."""
        command = "git for-each-ref --format='%(refname:lstrip=4) %(objectname)' 'refs/exps/[0-9a-f][0-9a-f]/*/*'"
        return dict(each.split() for each in self.terminal.type(command).splitlines())

    def changes(self) -> str:
        """What differs from the last commit."""
        return self.terminal.type("git status --porcelain")

    def has_published_model(self) -> bool:
        folders = self.terminal.folder, self.published.folder
        found, expected = ([(folder / name).read_bytes() for name in MODELS] for folder in folders)
        return found == expected


def after_clone(journey: Journey, line: str, output: str) -> None:
    """Puts in place what `make setup` would install: links to this environment."""
    environment = journey.terminal.folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".ready":
            (environment / entry.name).symlink_to(entry)
    (environment / ".ready").touch()


def after_demo(journey: Journey, line: str, output: str) -> None:
    assert "volume Dice" in output and (journey.terminal.folder / ".demo/metrics/report.html").is_file()
    assert journey.changes() == ""


def after_pull(journey: Journey, line: str, output: str) -> None:
    assert journey.has_published_model()


def after_repro(journey: Journey, line: str, output: str) -> None:
    """With the model there is nothing to train, and every byte is the committed one."""
    ran = tiny_pipeline.stages_run(output)
    assert "download" in ran and "train" not in ran
    assert journey.changes() == "" and journey.has_published_model()


def after_own_change(journey: Journey, line: str, output: str) -> None:
    block, key, value = re.search(r" -S (\w+)\.(\w+)=(\S+)", line).groups()
    assert str(config.read_yaml(journey.terminal.folder / "params.yaml")[block][key]) == value
    assert len(journey.commits().keys() - journey.commits_before) == 1
    assert "train" in tiny_pipeline.stages_run(output) and not journey.has_published_model()


def after_compare(journey: Journey, line: str, output: str) -> None:
    for named in (*line.split()[2:], "volume Dice", "Parameter train."):
        assert named in output


def after_metrics(journey: Journey, line: str, output: str) -> None:
    assert "volume_dice_mean" in output


def after_plots(journey: Journey, line: str, output: str) -> None:
    assert (journey.terminal.folder / "dvc_plots/index.html").is_file()


def after_queue(journey: Journey, line: str, output: str) -> None:
    """Three ran, in folders of their own: all have numbers, and the workspace is as it was."""
    new = sorted(journey.commits().keys() - journey.commits_before)
    assert len(new) >= 3, f"`{line}` of the README ran {new}; the journey has a queue of three"
    table = pd.read_csv(io.StringIO(journey.terminal.type("dvc exp show --csv"))).set_index("Experiment")
    assert table.loc[new, "volume_dice_mean"].notna().all(), table.loc[new]
    assert journey.changes() == journey.changes_before


def after_show(journey: Journey, line: str, output: str) -> None:
    assert "volume_dice" in output and "learning_rate" in output
    assert [name for name in journey.commits() if name not in output] == []


def after_apply(journey: Journey, line: str, output: str) -> None:
    assert journey.terminal.type(f"git diff {journey.commits()[line.split()[-1]]} -- {RESULTS}") == ""
    assert not journey.has_published_model()


def after_restore(journey: Journey, line: str, output: str) -> None:
    assert journey.changes() == "" and journey.has_published_model()


# What the journey needs of the README: how the line begins, and what looks at what it did.
LINES: dict[str, tuple[str, Callable[[Journey, str, str], None]]] = {
    "git clone": ("git clone", after_clone),
    "make demo": ("make demo", after_demo),
    PULL: (PULL, after_pull),
    "make repro": ("make repro", after_repro),
    "dvc exp run -S": (r"(dvc exp run|brainseg repro) (?!.*--queue).*-S ", after_own_change),
    "brainseg compare": ("brainseg compare", after_compare),
    "dvc metrics diff": ("dvc metrics diff", after_metrics),
    "dvc plots diff": ("dvc plots diff", after_plots),
    "dvc exp run --run-all": (".*dvc exp run --run-all", after_queue),
    "dvc exp show": ("dvc exp show", after_show),
    "dvc exp apply": ("dvc exp apply", after_apply),
    "brainseg restore": ("brainseg restore", after_restore),
}


@pytest.fixture
def lines() -> list[str]:
    """The README's first lines, `make pull`, and those about changes; without those that do not end.

    Raises:
        AssertionError: naming what the journey needs and the README does not have.
    """
    found = blocks("README.md", "bash")
    start, change = (
        [block for block in found if any(re.match(LINES[name][0], line) for line in block)]
        for name in ("git clone", "dvc exp run -S")
    )
    alone = [[PULL] for block in found if PULL in block][:1]
    lines = [line for block in [*start, *alone, *change] for line in block if line and not LEFT_OUT.match(line)]
    missing = [name for name, (pattern, _) in LINES.items() if not any(re.match(pattern, line) for line in lines)]
    assert missing == [], f"README.md has no line with: {', '.join(missing)}"
    return lines


@pytest.fixture
def published(lines, tmp_path) -> Repository:
    """This tree with tiny parameters, for the demo too; its run is committed and its model released."""
    repository = tiny_pipeline.create(tmp_path / "published/brainseg", TINY)
    (repository.folder / "recipes/demo.yaml").write_text(json.dumps(TINY))  # JSON is YAML
    for path in (repository.folder / "weights/files").rglob("*"):
        if path.is_file() and "".join(path.parts[-2:]) != EXAMPLES:  # no model but the tiny one
            path.unlink()
    tiny_pipeline.commit(repository)
    tiny_pipeline.repro(repository)
    tiny_pipeline.repro(repository, *MODELS, command=("push",))
    tiny_pipeline.commit(repository)
    return repository


def test_the_readme_from_clone_to_restore(lines, published, tmp_path):
    """Minutes: the pipeline runs six times."""
    home = tmp_path / "home"
    home.mkdir()
    address = next(line for line in lines if line.startswith("git clone")).split()[2]
    (home / ".gitconfig").write_text(
        f'[user]\nname = toy\nemail = toy@localhost\n[url "{published.folder}"]\ninsteadOf = {address}\n'
    )
    journey = Journey(Terminal(home), published)
    restore = next(line for line in lines if line.startswith("brainseg restore"))
    for line in [*lines, restore]:  # also after what was applied
        journey.walk(line)
