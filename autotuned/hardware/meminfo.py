"""Memory as Linux tells it in /proc: of the machine and of one process.

``hardware.memory`` reads the files. Pure functions of their texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotuned.core.memory import ProcessMemory
from autotuned.hardware.texts import parse_amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineMemory:
    """Memory of a whole machine, control groups aside; fields as in ``MemoryReading``."""

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int


def parse_meminfo(text: str) -> MachineMemory | None:
    """The machine's memory of /proc/meminfo; None where it lacks what counts (Linux before 3.14).

    The kernel's ``MemAvailable`` takes all pages of files for droppable. Those that a process maps are
    in use: weights that a worker maps would be read from disk again for each token. They are
    ``Mapped`` less, at most, ``Shmem``, which are no files though they can be mapped.
    """
    amounts = parse_amounts(text)
    total, available = amounts.get("MemTotal", 0), amounts.get("MemAvailable")
    if total <= 0 or available is None:
        return None
    mapped = max(0, amounts.get("Mapped", 0) - amounts.get("Shmem", 0))
    swap_total = amounts.get("SwapTotal", 0)
    return MachineMemory(
        total_bytes=total,
        available_bytes=min(total, max(0, available - mapped)),
        swap_total_bytes=swap_total,
        swap_free_bytes=min(swap_total, amounts.get("SwapFree", 0)),
    )


def parse_status(text: str) -> ProcessMemory | None:
    """Memory of a process of its /proc/PID/status; None where it tells none (a zombie, Linux before 4.5)."""
    amounts = parse_amounts(text)
    if "VmRSS" not in amounts or "RssAnon" not in amounts:
        return None
    resident = amounts["VmRSS"]
    return ProcessMemory(
        resident_bytes=resident,
        anonymous_bytes=min(resident, amounts["RssAnon"] + amounts.get("RssShmem", 0)),
    )
