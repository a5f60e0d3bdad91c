"""What this process may use of the machine: physical cores, instruction sets, memory, GPUs. Imports no engine."""

import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import psutil

CPUINFO = Path("/proc/cpuinfo")
DRIVER_SECONDS = 20.0  # for NVIDIA's driver to answer, which takes seconds where it is not kept loaded
SYSFS = Path("/sys/devices/system/cpu")
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
# Linux's names of the instruction sets that make a network faster, from the oldest to the newest.
INSTRUCTION_SETS = (
    "sse4_2",
    "avx",
    "fma",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
)


def cores() -> int:
    """The number of physical cores that this process may use, at least 1.

    Its affinity and the quotas of its control groups are limits. Two hyperthreads of one core count once, because one
    matrix product keeps a core busy. A quota of 2.5 processors gives 2 cores.
    """
    allowed = _affinity()
    if allowed is None:
        return _limit_by_quotas(psutil.cpu_count(logical=False) or os.cpu_count() or 1)
    return _limit_by_quotas(len({_siblings(cpu) for cpu in allowed}))


def processors() -> int:
    """Like ``cores``, but each hyperthread counts: for work that often waits, such as decoding files."""
    allowed = _affinity()
    return _limit_by_quotas(os.cpu_count() or 1 if allowed is None else len(allowed))


class Memory(NamedTuple):
    """Bytes that this process may use in all, and those that are free now."""

    total: int
    available: int


def memory() -> Memory:
    """The machine's memory, or that of the control groups (v2, v1) where it is less, as in a container."""
    found = psutil.virtual_memory()
    total, available = found.total, found.available
    for limit, used in _memory_limits():
        total, available = min(total, limit), min(available, max(0, limit - used))
    return Memory(total, available)


@functools.cache
def list_gpus() -> tuple[str, ...]:
    """The GPUs that NVIDIA's driver lists. The driver is asked because an engine would occupy all of them."""
    if not shutil.which("nvidia-smi"):
        return ()
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_SECONDS)
    except subprocess.TimeoutExpired:
        return ()
    return tuple(listed.stdout.split()) if listed.returncode == 0 else ()


def _affinity() -> set[int] | None:
    """The logical processors that this process may run on; None where the system has no affinity (macOS, Windows)."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def _limit_by_quotas(count: int) -> int:
    return max(1, int(min([count, *_quotas()])))


def _siblings(cpu: int) -> str:
    """The logical processors on the same core, as Linux lists them; the processor itself where Linux has no list."""
    try:
        return (SYSFS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quotas() -> list[float]:
    """The quotas, in processors, of this process's control groups (v2, v1) and their parents; empty without limits."""
    found = []
    for line in _read_text(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += [_ratio(_read_text(folder / "cpu.max").split()) for folder in _upwards(CGROUPS, path)]
        elif "cpu" in controllers.split(","):
            for folder in _upwards(CGROUPS / "cpu", path):
                period = _read_text(folder / "cpu.cfs_period_us")
                found.append(_ratio([_read_text(folder / "cpu.cfs_quota_us").strip(), period.strip()]))
    return [quota for quota in found if quota > 0]


def _memory_limits() -> list[tuple[int, int]]:
    """Limit and use, in bytes, of this process's control groups and their parents. Cached files give way: no use."""
    found = []
    for line in _read_text(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folders, names = _upwards(CGROUPS, path), ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            folders, names = _upwards(CGROUPS / "memory", path), ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        for folder in folders:
            limit, used = (_read_text(folder / name).strip() for name in names)
            if limit.isdecimal() and used.isdecimal():  # not max
                facts = dict(line.split() for line in _read_text(folder / "memory.stat").splitlines())
                found.append((int(limit), int(used) - int(facts.get("inactive_file", 0))))
    return found


def _upwards(root: Path, path: str) -> list[Path]:
    """The group's folder and its parents up to ``root``. Inside a container the group itself may be the root."""
    whole = root / path.lstrip("/")
    return [folder for folder in (whole, *whole.parents) if folder.is_relative_to(root)]


def _ratio(words: list[str]) -> float:
    """Quota divided by period; 0 where there is no limit (``max``, -1, no such file)."""
    try:
        return max(0.0, float(words[0]) / float(words[1]))
    except (IndexError, ValueError, ZeroDivisionError):
        return 0.0


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """Those of ``INSTRUCTION_SETS`` that the processor has; empty where the system is not Linux or not x86."""
    lines = [line for line in _read_text(CPUINFO).splitlines() if line.startswith("flags")]
    flags = set(lines[0].split(":", 1)[1].split()) if lines else set()
    return tuple(name for name in INSTRUCTION_SETS if name in flags)


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions that multiply bfloat16 (AVX512_BF16, AMX)."""
    return bool(NATIVE_BFLOAT16 & set(instruction_sets()))


def kind() -> str:
    """The kind of machine, usable as a file name: ``2-cores-avx2``, ``16-cores-avx512-bf16``, ``8-cores-arm64``."""
    has = set(instruction_sets())
    best = next((name for flag, name in _KINDS.items() if flag in has), platform.machine().lower())
    return f"{cores()}-core{'s' if cores() > 1 else ''}-{best}"


_KINDS = {"amx_bf16": "amx", "avx512_bf16": "avx512-bf16", "avx512f": "avx512", "avx2": "avx2", "avx": "avx"}


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
