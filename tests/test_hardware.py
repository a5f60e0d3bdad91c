"""Cores and instruction sets: affinity, hyperthreads, quotas of control groups."""

import os

import pytest

from brainseg import hardware

NO_LIMIT = "max 100000\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 4 cores and 8 hyperthreads (i and i + 4 share a core). The returned function sets its limits."""
    for cpu in range(8):
        folder = tmp_path / f"cpus/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(hardware, "SYSFS", tmp_path / "cpus")
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def limit(allowed=range(8), own="0::/\n", files=()):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed), raising=False)
        (tmp_path / "own").write_text(own)
        for name, text in files:
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return limit


CASES = {
    "no limit": ({}, 4),
    "one core's two hyperthreads": ({"allowed": [1, 5]}, 1),
    "three cores": ({"allowed": [0, 1, 2]}, 3),
    "a container's quota": ({"files": [("cpu.max", "200000 100000\n")]}, 2),
    "a quota of 2.5": ({"files": [("cpu.max", "250000 100000\n")]}, 2),
    "less than one": ({"files": [("cpu.max", "50000 100000\n")]}, 1),
    "max": ({"files": [("cpu.max", NO_LIMIT)]}, 4),
    "the group's own, its parent's is less": (
        {"own": "0::/a/b\n", "files": [("a/b/cpu.max", "300000 100000\n"), ("a/cpu.max", "100000 100000\n")]},
        1,
    ),
    "version 1": (
        {
            "own": "4:cpu,cpuacct:/job\n",
            "files": [("cpu/job/cpu.cfs_quota_us", "300000\n"), ("cpu/job/cpu.cfs_period_us", "100000\n")],
        },
        3,
    ),
    "version 1 without a limit": (
        {"own": "4:cpu:/\n", "files": [("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")]},
        4,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_cores_that_this_process_may_use(case, machine):
    limits, expected = CASES[case]
    machine(**limits)
    assert hardware.cores() == expected
    assert expected <= hardware.processors() <= 2 * expected


def test_a_machine_without_linux_files(machine, tmp_path, monkeypatch):
    machine()
    monkeypatch.setattr(hardware, "SYSFS", tmp_path / "none")
    (tmp_path / "own").unlink()
    assert hardware.cores() == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(hardware.psutil, "cpu_count", lambda logical: None if logical else 4)
    assert hardware.cores() == 4


GROUPS = {
    "no limit": ({}, (800, 500)),
    "a container's": ({"files": [("memory.max", "300"), ("memory.current", "200")]}, (300, 100)),
    "cached files give way": (
        {"files": [("memory.max", "300"), ("memory.current", "200"), ("memory.stat", "anon 50\ninactive_file 150\n")]},
        (300, 250),
    ),
    "more than there is": ({"files": [("memory.max", "900"), ("memory.current", "300")]}, (800, 500)),
    "max": ({"files": [("memory.max", "max"), ("memory.current", "200")]}, (800, 500)),
    "version 1": (
        {
            "own": "5:memory:/job\n",
            "files": [("memory/job/memory.limit_in_bytes", "400"), ("memory/job/memory.usage_in_bytes", "100")],
        },
        (400, 300),
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_memory_that_this_process_may_use(case, machine, monkeypatch):
    limits, expected = GROUPS[case]
    machine(**limits)
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: hardware.Memory(800, 500))
    assert hardware.memory() == expected


FLAGS = [
    ("fpu sse4_2 avx fma avx2", False, "2-cores-avx2"),
    ("sse4_2 avx fma avx2 avx512f avx512_vnni", False, "2-cores-avx512"),
    ("avx2 avx512f avx512_bf16", True, "2-cores-avx512-bf16"),
    ("avx2 avx512f avx512_bf16 amx_bf16 amx_int8", True, "2-cores-amx"),
]


@pytest.mark.parametrize(("flags", "native", "kind"), FLAGS)
def test_kinds_of_processor(flags, native, kind, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n\nprocessor : 1\nflags : {flags}\n")
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(hardware, "cores", lambda: 2)
    hardware.instruction_sets.cache_clear()
    try:
        assert hardware.multiplies_bfloat16() == native
        assert hardware.kind() == kind
    finally:
        hardware.instruction_sets.cache_clear()


def test_where_linux_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(hardware, "cores", lambda: 1)
    hardware.instruction_sets.cache_clear()
    try:
        assert not hardware.multiplies_bfloat16()
        assert hardware.kind() == "1-core-arm64"
    finally:
        hardware.instruction_sets.cache_clear()
