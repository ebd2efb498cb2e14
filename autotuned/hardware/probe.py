"""Reads the machine: the ``Machine`` of every system.

``services`` ask for readings and for the memory of workers. Invariant: none waits to measure: CPU use is
what happened since the last one, and is read on a thread. Readings of memory alone are synchronous: they
hold the event loop for about 0.2 ms.
"""

from __future__ import annotations

import asyncio
import threading

import psutil

from autotuned.core.memory import MemoryReading, ProcessMemory
from autotuned.core.ports import Machine
from autotuned.core.snapshot import MachineReading
from autotuned.hardware.memory import MemoryProbe

_SHORTEST_INTERVAL_SECONDS = 0.1
"""Of CPU time, all cores together. The kernel counts in hundredths: less than this would be noise."""


class PsutilMachine(Machine):
    """One reader's view of the machine; CPU use is first counted from the making of this object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._self = psutil.Process()
        self._memory = MemoryProbe()
        self._cpu_used_ratio = 0.0
        self._cpu_seconds = _cpu_seconds()

    async def read(self) -> MachineReading:
        """A reading of now."""
        return await asyncio.to_thread(self._read)

    async def read_memory(self) -> MemoryReading:
        """A reading of memory alone. Made at once: a thread to make it would cost as much again."""
        return self._memory.read()

    def process_memory(self, process_id: int) -> ProcessMemory:
        """Memory of a process; zeros where it is gone or unknown."""
        return self._memory.process(process_id)

    def _read(self) -> MachineReading:
        with self._lock:
            return MachineReading(
                cpu_used_ratio=self._measure_cpu(),
                cpu_cores_count=psutil.cpu_count() or 1,
                memory=self._memory.read(),
                daemon_resident_memory_bytes=self._self.memory_info().rss,
            )

    def _measure_cpu(self) -> float:
        before, now = self._cpu_seconds, _cpu_seconds()
        busy_seconds, total_seconds = now[0] - before[0], now[1] - before[1]
        if total_seconds >= _SHORTEST_INTERVAL_SECONDS:
            self._cpu_seconds = now
            self._cpu_used_ratio = min(1.0, max(0.0, busy_seconds / total_seconds))
        return self._cpu_used_ratio


def _cpu_seconds() -> tuple[float, float]:
    """Seconds since the start of the machine, all cores together: busy, and busy or idle."""
    times = psutil.cpu_times()
    guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted as user time already
    total = sum(times) - guest
    return total - times.idle - getattr(times, "iowait", 0.0), total
