"""Reads what the machine is made of: the ``HardwareProbe`` of every system.

``services`` ask when a person wants to see the hardware or a recommendation. Invariant: all of it happens on
a thread, one reading at a time; what never changes is read once, and memory is measured once for good.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autotuned.core.hardware import Application, Bandwidth, Gpu, Hardware, Power
from autotuned.core.ports import HardwareProbe
from autotuned.hardware import apple, linux, processes, read_rate
from autotuned.hardware.applications import applications
from autotuned.hardware.bandwidth import MeasuredBandwidth
from autotuned.hardware.memory import MemoryProbe
from autotuned.hardware.power import PowerReader


class HardwareReader(HardwareProbe):
    """One machine. ``cache_file`` remembers its bandwidth; ``root`` is the folder that "/" stands for."""

    def __init__(self, cache_file: Path, root: Path = Path("/")) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._power = PowerReader(root)
        self._built_in: Hardware | None = None
        self._bandwidth = MeasuredBandwidth(cache_file, self._measure)

    async def read(self) -> Hardware:
        """The machine now. The first reading of a machine measures its memory: about 0.2 s."""
        return await asyncio.to_thread(self._read)

    async def applications(self) -> Sequence[Application]:
        """The largest programs of this user, the daemon, its workers and the session left out."""
        return await asyncio.to_thread(self._read_applications)

    def _read(self) -> Hardware:
        with self._lock:
            built_in = self._built_in = self._built_in or self._read_built_in()
            bandwidth = built_in.memory_bandwidth
            if not bandwidth.bytes_per_second:
                bandwidth = self._bandwidth.read(built_in.cpu, built_in.memory_bytes)
            gpus = built_in.gpus or (() if _is_mac() else linux.read_gpus(self._root))
            return replace(
                built_in,
                memory_bandwidth=bandwidth,
                gpus=tuple(_with_bandwidth(gpu, bandwidth) for gpu in gpus),
                power=self._read_power(),
            )

    def _read_built_in(self) -> Hardware:
        return apple.read_hardware() if _is_mac() else linux.read_hardware(self._root, platform.machine())

    def _read_power(self) -> Power:
        return apple.read_power() if _is_mac() else self._power.read()

    def _read_applications(self) -> Sequence[Application]:
        user = os.getuid()
        found = processes.read_macos(user) if _is_mac() else processes.read_linux(self._root, user)
        return applications(found, os.getpid())

    def _measure(self) -> int:
        cpu = self._built_in.cpu if self._built_in else None
        available = MemoryProbe(self._root).read().available_bytes
        size = read_rate.buffer_bytes(read_rate.last_cache_bytes(self._root), available)
        if not size or cpu is None:
            return 0
        return read_rate.measure_bytes_per_second(size, min(cpu.physical_cores_count, _usable_cpus_count()))


def _with_bandwidth(gpu: Gpu, memory: Bandwidth) -> Gpu:
    """A GPU that reads the RAM reads it as fast as the RAM is, where its own maker says nothing."""
    if not gpu.unified or gpu.bandwidth.bytes_per_second:
        return gpu
    return replace(gpu, bandwidth=memory)


def _usable_cpus_count() -> int:
    """Those that this process may run on; macOS leaves it all."""
    if sys.platform == "darwin":
        return os.cpu_count() or 1
    return len(os.sched_getaffinity(0))


def _is_mac() -> bool:
    return sys.platform == "darwin"
