"""A Linux machine: joins what the readers of its parts tell.

``hardware.reader`` asks. Invariant: nothing here waits, and nothing fails for a file that is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from autotuned.core.hardware import Gpu, Hardware
from autotuned.hardware import drm, nvidia
from autotuned.hardware.cpu import read_cpu
from autotuned.hardware.names import read_model, read_system
from autotuned.hardware.texts import parse_amounts, read_text


def read_hardware(root: Path, machine: str) -> Hardware:
    """What never changes: no GPUs, whose memory does, and no power.

    ``root`` is the folder that "/" stands for, ``machine`` the architecture by uname(2).
    """
    return Hardware(
        system=read_system(root),
        model=read_model(root),
        cpu=read_cpu(root, machine),
        memory_bytes=parse_amounts(read_text(root / "proc/meminfo") or "").get("MemTotal", 0),
    )


def read_gpus(root: Path, load_nvml: Callable[[], ModuleType] | None = None) -> tuple[Gpu, ...]:
    """Its GPUs, those with memory of their own first."""
    gpus = (*nvidia.read_gpus(root, load_nvml), *drm.read_gpus(root))
    return tuple(sorted(gpus, key=lambda gpu: gpu.unified))
