"""What this process may use of the machine: physical cores, instruction sets. Knows no engine."""

import functools
import os
import platform
from pathlib import Path

import psutil

CPUINFO = Path("/proc/cpuinfo")
SYSFS = Path("/sys/devices/system/cpu")
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
# What matters to a network's speed, slowest first, by the names that Linux gives them.
TOLD = ("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def cores() -> int:
    """Physical cores that this process may use: its affinity and the quotas of its control groups count.

    Two hyperthreads of one core count once, because a matrix product fills a core alone. A quota of 2.5 processors is
    2 cores. At least 1.
    """
    return max(1, int(min([_allowed_cores(), *_quotas()])))


def processors() -> int:
    """As ``cores``, each hyperthread counted: for work that waits, such as decoding files."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas()])))


def _allowed_cores() -> int:
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return len({_siblings(cpu) for cpu in os.sched_getaffinity(0)})


def _siblings(cpu: int) -> str:
    """The processors that share a core with this one, as Linux lists them; itself where Linux does not tell."""
    try:
        return (SYSFS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quotas() -> list[float]:
    """Processors that the control groups (v2, v1) of this process and their parents allow, where they set a limit."""
    found = []
    for line in _text(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += [_ratio(_text(folder / "cpu.max").split()) for folder in _upwards(CGROUPS, path)]
        elif "cpu" in controllers.split(","):
            for folder in _upwards(CGROUPS / "cpu", path):
                period = _text(folder / "cpu.cfs_period_us")
                found.append(_ratio([_text(folder / "cpu.cfs_quota_us").strip(), period.strip()]))
    return [quota for quota in found if quota > 0]


def _upwards(root: Path, path: str) -> list[Path]:
    """The group's folder and those above it; inside a container the group itself may be the root."""
    whole = root / path.lstrip("/")
    return [folder for folder in (whole, *whole.parents) if folder.is_relative_to(root)]


def _ratio(words: list[str]) -> float:
    """Quota through period; 0 where there is no limit (``max``, -1, no such file)."""
    try:
        return max(0.0, float(words[0]) / float(words[1]))
    except (IndexError, ValueError, ZeroDivisionError):
        return 0.0


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """Those of ``TOLD`` that the processor has; none where Linux does not tell."""
    lines = [line for line in _text(CPUINFO).splitlines() if line.startswith("flags")]
    flags = set(lines[0].split(":", 1)[1].split()) if lines else set()
    return tuple(name for name in TOLD if name in flags)


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX512_BF16, AMX)."""
    return bool(NATIVE_BFLOAT16 & set(instruction_sets()))


def kind() -> str:
    """The kind of machine, as a file's name: ``2-cores-avx2``, ``16-cores-avx512-bf16``, ``8-cores-arm64``."""
    has = set(instruction_sets())
    best = next((name for flag, name in _KINDS.items() if flag in has), platform.machine().lower())
    return f"{cores()}-core{'s' if cores() > 1 else ''}-{best}"


_KINDS = {"amx_bf16": "amx", "avx512_bf16": "avx512-bf16", "avx512f": "avx512", "avx2": "avx2", "avx": "avx"}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
