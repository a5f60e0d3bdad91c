"""The first five minutes: pinned requirements and the Makefile's targets, `make bench` with its records."""

import json
import os
import re
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from brainseg import hardware
from tests.support import toy_pipeline
from tests.support.toy_pipeline import PROJECT

FILES = ("requirements.txt", "requirements-gpu.txt")
TARGETS = [
    *(
        "help",
        "setup",
        "demo",
        "repro",
        "restore",
        "cross-validate",
        "test",
        "test-slow",
        "test-cluster",
        "torture",
        "lint",
    ),
    *(
        "hooks",
        "docs",
        "bench",
        "notebook",
        "serve",
        "page",
        "pictures",
        "site",
        "wheel",
        "release",
        "ui",
        "push",
        "pull",
    ),
]


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
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *arguments], cwd=PROJECT, env=own, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_help_lists_every_target():
    shown = make("help")[1]
    assert re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE) == TARGETS


@pytest.mark.parametrize(("fresh", "option"), [("", ""), ("0", ""), ("1", "--fresh")])
def test_the_demo_starts_again_when_asked(fresh, option, tmp_path):
    code, shown = make("-n", "demo", f"FRESH={fresh}", f"VENV={tmp_path}/venv", "PYTHON=python3.11")
    assert code == 0
    assert shown.splitlines()[-1].split("bin/brainseg demo")[1].strip() == option


def test_a_make_around_the_tests_has_no_say(monkeypatch):
    monkeypatch.setenv("MAKEFLAGS", "w")
    monkeypatch.setenv("MAKELEVEL", "1")
    assert "Entering directory" not in make("help")[1]


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


@pytest.fixture
def bench(monkeypatch):
    """benchmarks/preprocess.py, whose steps are only noted, and the list of the notes."""
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    monkeypatch.setattr("sys.argv", ["preprocess.py", f"--archive={__file__}"])
    import preprocess

    steps = []
    for module, name in (
        *((preprocess, "compare"), (preprocess, "grow")),
        *((preprocess.archive, "write"), (preprocess.results, "save")),
    ):
        monkeypatch.setattr(module, name, lambda *_, name=name: steps.append(name))
    return preprocess, steps


QUICK = [("1", ["write", "compare"]), ("0", ["compare", "grow", "save"]), ("", ["compare", "grow", "save"])]


@pytest.mark.parametrize(("quick", "expected"), QUICK)
def test_quick_bench_draws_phantoms_repeats_nothing_and_records_nothing(bench, monkeypatch, quick, expected):
    monkeypatch.setenv("QUICK", quick)
    preprocess, steps = bench
    preprocess.main()
    assert steps == expected


def test_bench_removes_what_killed_runs_left(bench, project_root):
    dead = next(pid for pid in range(2**22, 0, -1) if not psutil.pid_exists(pid))
    killed, running, other = (
        project_root / ".brainseg" / name for name in (f"bench-{dead}-x", f"bench-{os.getpid()}-x", "checkpoints")
    )
    for folder in (killed, running, other):
        folder.mkdir(parents=True)
        (folder / "large.zip").touch()
    bench[0].main()
    assert sorted((project_root / ".brainseg").iterdir()) == sorted([running, other])


@pytest.fixture
def bench_training(monkeypatch):
    """benchmarks/training.py, whose runs take no time: a rate for each side, seconds to the Dice, a peak of memory."""
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    monkeypatch.setattr("sys.argv", ["training.py", "--runs=3", "--dice=1"])
    import training

    rates = {
        "ours": iter([60.0, 90.0, 80.0]),
        "legacy_keras": iter([20.0] * 3),
        ("torch", "float32"): iter([70.0]),  # looked at once: not the fastest
        ("torch", "bfloat16"): iter([10.0]),
        ("opencv", "float32"): iter([90.0, 100.0, 100.0, 100.0]),
        ("opencv", "bfloat16"): iter([10.0]),
    }
    seconds = {"our_seconds": 200.0, "pytorch_seconds": 400.0}

    def alone(function, *arguments):
        name = getattr(function, "func", function).__name__
        if name in seconds:
            return seconds[name]
        side = arguments[0]
        key = (side.keywords["way"], side.keywords["precision"]) if hasattr(side, "keywords") else side.__name__
        return next(rates[key]), 1000.0

    saved = []
    monkeypatch.setattr(training, "alone", alone)
    monkeypatch.setattr(training, "_has_torch", lambda: True)
    monkeypatch.setattr(training, "_our_precision", lambda: "float32")
    monkeypatch.setattr(training, "phantoms", lambda folder: (folder, folder))
    monkeypatch.setattr(training.results, "save", saved.extend)
    return training, saved


def test_bench_of_training_takes_medians_of_runs_in_turn(bench_training, monkeypatch, tmp_path):
    training, saved = bench_training
    monkeypatch.setattr(training, "REAL", (tmp_path, tmp_path))
    training.main()
    found = {row.id: (row.ours, row.peer, row.ratio, row.runs, row.higher_is_better) for row in saved}
    assert found == {
        "train_vs_legacy_keras": (80.0, 20.0, 4.0, 3, True),
        "train_vs_pytorch": (80.0, 100.0, 0.8, 3, True),
        "train_rss_mib": (1000.0, None, None, 3, False),
        "time_to_dice80_s": (200.0, None, None, 1, False),
        "time_to_dice80_vs_pytorch": (200.0, 400.0, 0.5, 1, False),
    }
    notes = {row.id: row.note for row in saved}
    assert notes["train_vs_pytorch"] == "ours float32; PyTorch float32, augmented by OpenCV in its loader"
    assert notes["train_vs_legacy_keras"] == "ours float32; the older recipe float32, oneDNN as TensorFlow decides"


def test_quick_bench_of_training_records_nothing(bench_training, monkeypatch, tmp_path):
    training, saved = bench_training
    monkeypatch.setattr(training, "REAL", (tmp_path, tmp_path))
    monkeypatch.setenv("QUICK", "1")
    training.main()
    assert saved == []


def test_a_dice_that_was_never_reached_makes_no_row(bench_training, monkeypatch, capsys):
    training, _ = bench_training
    best = partial(training.pytorch, way="opencv", precision="float32")
    never = lambda function, *_: 200.0 if function is training.our_seconds else np.inf  # noqa: E731
    monkeypatch.setattr(training, "alone", never)
    assert [row.id for row in training.time_to_dice((Path(), Path()), 1, best)] == ["time_to_dice80_s"]
    assert "pytorch: volume Dice 0.8 was not reached" in capsys.readouterr().out


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A repository with benchmarks/results/; a call records one row and returns this kind of machine's file."""
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    import results

    monkeypatch.setattr(results, "FOLDER", tmp_path / "toy/benchmarks/results")
    repository = toy_pipeline.create(tmp_path / "toy")
    results.FOLDER.parent.mkdir()

    def record(name, ours):
        results.save([results.row(name, [ours], [2.0], "s", higher_is_better=False)])
        return json.loads(results.path().read_text())

    return repository, record


def test_bench_keeps_rows_with_their_commit_and_none_of_another_machine(recorded, monkeypatch):
    repository, record = recorded
    record("a", 1.0)
    first = repository.git("rev-parse", "--short", "HEAD").strip()
    assert [row["id"] for row in record("b", 1.0)["rows"]] == ["a", "b"]
    repository.git("add", "benchmarks")
    repository.git("commit", "--quiet", "--message", "rows")
    second = repository.git("rev-parse", "--short", "HEAD").strip()
    kept = record("b", 3.0)["rows"]
    assert [(row["id"], row["commit"], row["ours"]) for row in kept] == [("a", first, 1.0), ("b", second, 3.0)]
    monkeypatch.setattr("results._machine", lambda: "another")
    found = record("c", 1.0)
    assert (found["machine"], found["instruction_sets"]) == ("another", list(hardware.instruction_sets()))
    assert found["commit"] == repository.git("rev-parse", "--short", "HEAD").strip()
    assert [row["id"] for row in record("c", 1.0)["rows"]] == ["c"]


def test_bench_of_a_changed_tree_is_called_dirty(recorded):
    repository, record = recorded
    commit = repository.git("rev-parse", "--short", "HEAD").strip()
    record("a", 1.0)
    repository.git("add", "benchmarks")
    assert record("a", 2.0)["commit"] == commit  # its own record does not make it so
    (repository.folder / "stages/data.py").write_text("pass\n")
    found = record("b", 1.0)
    assert [row["commit"] for row in found["rows"]] == [commit, f"{commit}-dirty"]


def test_bench_shows_kinds_of_machine_side_by_side(recorded):
    import results

    _, record = recorded
    found = record("a_s", 1.0) | {"machine": "another"}
    found["rows"] = [{**found["rows"][0], "ours": 0.25, "peer": None, "ratio": None}, {**found["rows"][0], "id": "b"}]
    (results.FOLDER / "z-cores.json").write_text(json.dumps(found))
    kind = hardware.kind()
    assert results.table().splitlines() == [
        f"|  | `{kind}` | `z-cores` |",
        "| --- | --- | --- |",
        "| `a_s` (s) | 1.0 (0.50) | 0.25 |",
        "| `b` (s) | not measured | 1.0 (0.50) |",
    ]
