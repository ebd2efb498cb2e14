"""How the machine stands at one moment. Made by ``hardware``, joined with models by ``services``."""

from __future__ import annotations

from dataclasses import dataclass

from autotuned.core.memory import MemoryReading, PressureTier
from autotuned.core.model import RunningModel


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineReading:
    """What the operating system tells. ``cpu_used_ratio``: 0 to 1 over all cores, since the last reading."""

    cpu_used_ratio: float
    cpu_cores_count: int
    memory: MemoryReading
    daemon_resident_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Machine and daemon at ``taken_at``, in seconds since the epoch."""

    taken_at: float
    machine: MachineReading
    pressure: PressureTier
    saved_prefixes_count: int
    saved_prefixes_bytes: int
    running_models: tuple[RunningModel, ...]
    active_requests_count: int
    queued_requests_count: int
