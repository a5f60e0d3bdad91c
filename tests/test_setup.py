"""The first five minutes: pinned requirements and the Makefile's targets."""

import re
import subprocess

import pytest

from tests.toy_pipeline import PROJECT

FILES = ("requirements.txt", "requirements-gpu.txt")
TARGETS = ["help", "setup", "demo", "repro", "test", "test-slow", "lint", "bench", "ui", "push", "pull"]


def pins(name):
    """Package → the versions pinned for one platform or Python or another."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", (PROJECT / name).read_text(), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_a_hash_and_no_line_names_a_registry(name):
    text = (PROJECT / name).read_text()
    blocks = re.split(r"\n(?=[a-z])", text.split("\n", 2)[2])
    assert len(blocks) > 200
    assert all("==" in block and "--hash=sha256:" in block for block in blocks)
    assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host|://", text)


def test_both_files_hold_what_is_asked_for_in_the_same_versions():
    cpu, gpu = map(pins, FILES)
    asked = dict(
        re.findall(r"^([a-z0-9.-]+)(?:\[.*\])?==(\S+)", (PROJECT / "requirements-common.in").read_text(), re.MULTILINE)
    )
    assert {name: cpu[name] for name in asked} == {name: {version} for name, version in asked.items()}
    assert {name: gpu[name] for name in cpu if name != "tensorflow-cpu"} == {
        k: v for k, v in cpu.items() if k != "tensorflow-cpu"
    }
    assert cpu["tensorflow"] == cpu["tensorflow-cpu"] == gpu["tensorflow"]


def make(*arguments):
    done = subprocess.run(["make", *arguments], cwd=PROJECT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_help_lists_every_target():
    shown = make("help")[1]
    assert re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE) == TARGETS


@pytest.mark.parametrize("uv", ["", "uv"])
def test_setup_installs_hashed_requirements_then_the_package(uv, tmp_path):
    code, shown = make("-n", "setup", f"UV={uv}", f"VENV={tmp_path}/venv", "PYTHON=python3.11")
    assert code == 0
    steps = [line for line in shown.splitlines() if " install " in line]
    assert "--require-hashes -r requirements.txt" in steps[0] and "--no-deps --editable ." in steps[1]
    assert all(step.startswith("uv") == bool(uv) for step in steps)


def test_an_unsupported_python_is_named_with_the_way_to_get_one(tmp_path):
    code, shown = make("setup", "UV=", f"VENV={tmp_path}/venv", "PYTHON=")
    assert code != 0
    assert "ERROR 3 python: Python 3.11 to 3.13 is needed" in shown and "uv python install 3.12" in shown
    assert not (tmp_path / "venv").exists()


def test_what_is_installed_stays_until_the_requirements_change(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/.ready").touch()
    code, shown = make("-n", "setup", f"VENV={tmp_path}/venv")
    assert code == 0 and " install " not in shown
