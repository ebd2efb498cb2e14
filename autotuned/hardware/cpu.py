"""The processor of a Linux machine, of /proc/cpuinfo and the files under /sys/devices.

``hardware.linux`` reads it once. Invariant: every core that the kernel runs on counts, whatever a control
group or an affinity leaves this process of them; where a container hides files, what is left is counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from autotuned.core.hardware import Cpu
from autotuned.hardware.cpuinfo import CpuInfo, parse_cpuinfo
from autotuned.hardware.texts import read_text, whole_number

_SAME_KIND_RATIO = 0.8
"""Cores of one kind differ by a few percent in capacity and fastest clock; small cores have far less."""

_MOST_CPUS = 1 << 16
_ARCHITECTURES = {"aarch64": "arm64", "amd64": "x86_64", "AMD64": "x86_64"}
_CPUS = "sys/devices/system/cpu"


def architecture_name(machine: str) -> str:
    """One name for each architecture: "x86_64", "arm64", else what uname says."""
    return _ARCHITECTURES.get(machine, machine)


def parse_cpu_list(text: str) -> frozenset[int]:
    """Numbers of a list like ``0-3,8,10-11``; empty where it is none."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        low, high = whole_number(first), whole_number(last or first)
        if low is None or high is None or high >= _MOST_CPUS:
            return frozenset()
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def read_cpu(root: Path, machine: str) -> Cpu:
    """The processor; ``root`` is the folder that "/" stands for, ``machine`` the word of uname."""
    info = parse_cpuinfo(read_text(root / "proc/cpuinfo") or "")
    cores = _read_cores(root, info)
    fast = _read_fast_cpus(root, frozenset(cores))
    return Cpu(
        model=info.model,
        architecture=architecture_name(machine),
        physical_cores_count=len(set(cores.values())),
        logical_cores_count=len(cores),
        performance_cores_count=len({cores[number] for number in fast}),
        instruction_sets=info.instruction_sets,
    )


def fast_cpus(strengths: Mapping[int, int]) -> frozenset[int]:
    """Those that are about as strong as the strongest; empty where all are."""
    least_fast = max(strengths.values(), default=0) * _SAME_KIND_RATIO
    fast = frozenset(number for number, strength in strengths.items() if strength >= least_fast)
    return fast if len(fast) < len(strengths) else frozenset()


def _read_cores(root: Path, info: CpuInfo) -> dict[int, Hashable]:
    """By logical core what tells its core from others; one that nobody tells of is a core of its own."""
    online = parse_cpu_list(read_text(root / _CPUS / "online") or "")
    return {
        number: read_text(root / _CPUS / f"cpu{number}/topology/thread_siblings_list")
        or info.cores.get(number)
        or number
        for number in online or frozenset(info.cores)
    }


def _read_fast_cpus(root: Path, numbers: AbstractSet[int]) -> frozenset[int]:
    """Of a processor with cores of several kinds: as Intel's driver lists them, by capacity, or by clock."""
    listed = parse_cpu_list(read_text(root / "sys/devices/cpu_core/cpus") or "")
    if listed and parse_cpu_list(read_text(root / "sys/devices/cpu_atom/cpus") or ""):
        return listed & numbers
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        texts = {number: read_text(root / _CPUS / f"cpu{number}" / name) or "" for number in numbers}
        strengths = {number: strength for number, text in texts.items() if (strength := whole_number(text))}
        if len(strengths) == len(numbers) and (fast := fast_cpus(strengths)):
            return fast
    return frozenset()
