"""Reads memory: of the machine, within the control groups around this process, and of one process.

``hardware.probe`` owns it. Invariant: a reading takes well under a millisecond and never fails; what
the system does not tell is left out. ``0 <= available <= total`` holds for memory and for swap.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import psutil

from autotuned.core.memory import MemoryReading, ProcessMemory
from autotuned.hardware import darwin
from autotuned.hardware.cgroup import ControlGroups
from autotuned.hardware.meminfo import MachineMemory, parse_meminfo, parse_status
from autotuned.hardware.pressure_stall import parse_stalled_ratio
from autotuned.hardware.texts import read_text

_NO_PROCESS = ProcessMemory(resident_bytes=0, anonymous_bytes=0)


class MemoryProbe:
    """Reads memory at one moment. ``root`` is the folder that "/" stands for."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._groups = ControlGroups(root)

    def read(self) -> MemoryReading:
        """The memory that this process and its children may use, and how it stands now."""
        machine = parse_meminfo(read_text(self._root / "proc/meminfo") or "") or _psutil_memory()
        group = self._groups.read()
        limit = group.limit_bytes if (group.limit_bytes or 0) < machine.total_bytes else None
        total = _least(machine.total_bytes, limit)
        swap_total = _least(machine.swap_total_bytes, group.swap_limit_bytes)
        return MemoryReading(
            total_bytes=total,
            available_bytes=min(total, _least(machine.available_bytes, group.available_bytes)),
            swap_total_bytes=swap_total,
            swap_free_bytes=min(swap_total, _least(machine.swap_free_bytes, group.swap_free_bytes)),
            limit_bytes=limit,
            stalled_ratio=self._stalled_ratio(within_group=limit is not None),
            os_pressure_level=darwin.pressure_level(darwin.read_sysctl) if _is_mac() else None,
            wired_limit_bytes=darwin.wired_limit_bytes(darwin.read_sysctl, total) if _is_mac() else None,
        )

    def process(self, process_id: int) -> ProcessMemory:
        """Memory of a process; zeros where it is gone or unknown."""
        if process_id <= 0:
            return _NO_PROCESS
        status = read_text(self._root / "proc" / str(process_id) / "status")
        return parse_status(status or "") or _psutil_process(process_id)

    def _stalled_ratio(self, *, within_group: bool) -> float | None:
        """Of the group that has the limit, where it tells; else of the whole machine."""
        folder = self._groups.unified_folder
        if within_group and folder is not None:
            ratio = parse_stalled_ratio(read_text(folder / "memory.pressure") or "")
            if ratio is not None:
                return ratio
        return parse_stalled_ratio(read_text(self._root / "proc/pressure/memory") or "")


def _is_mac() -> bool:
    return sys.platform == "darwin"


def _psutil_memory() -> MachineMemory:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # containers hide figures that are not used here
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return MachineMemory(
        total_bytes=memory.total,
        available_bytes=min(memory.total, memory.available),
        swap_total_bytes=swap.total,
        swap_free_bytes=min(swap.total, swap.free),
    )


def _psutil_process(process_id: int) -> ProcessMemory:
    try:
        resident = int(psutil.Process(process_id).memory_info().rss)
    except psutil.Error:
        return _NO_PROCESS
    return ProcessMemory(resident_bytes=resident, anonymous_bytes=resident)


def _least(figure: int, other: int | None) -> int:
    return figure if other is None else min(figure, other)
