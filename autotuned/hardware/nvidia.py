"""GPUs of NVIDIA, through NVML, the library of their driver.

``hardware.linux`` reads them each time. Invariant: where there is no driver nothing is imported; where the
library fails, what the driver's files tell is left. The library is closed after each reading, so that the
GPU of a laptop can sleep.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from autotuned.core.hardware import Gpu, GpuVendor
from autotuned.hardware.specified import nvidia_bandwidth, specified_bandwidth
from autotuned.hardware.texts import read_text

_DRIVER_FILES = ("dev/nvidiactl", "proc/driver/nvidia/version", "usr/lib/wsl/lib/libnvidia-ml.so.1")
_HERTZ_PER_MEGAHERTZ = 10**6
_TRANSFERS_PER_CLOCK = 2
"""NVML counts GDDR and HBM alike so that twice its clock is the data rate of one pin."""

_BITS_PER_BYTE = 8

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What NVML tells of one GPU; None where it does not support the question."""

    name: str
    memory_bytes: int | None = None
    free_bytes: int | None = None
    memory_megahertz: int | None = None
    bus_bits: int | None = None
    shares_memory: bool = False


def read_gpus(root: Path, load: Callable[[], ModuleType] | None = None) -> tuple[Gpu, ...]:
    """GPUs of NVIDIA; () without their driver. ``load`` imports ``pynvml``."""
    if not any((root / name).exists() for name in _DRIVER_FILES):
        return ()
    return _ask((load or _import)()) or _from_files(root)


def gpu_of(figures: Figures, driver: str) -> Gpu:
    """The GPU of these figures."""
    clock, bits = figures.memory_megahertz or 0, figures.bus_bits or 0
    rate = clock * _HERTZ_PER_MEGAHERTZ * _TRANSFERS_PER_CLOCK * bits / _BITS_PER_BYTE
    told = specified_bandwidth(0 if figures.shares_memory else rate)
    return Gpu(
        name=figures.name,
        vendor=GpuVendor.NVIDIA,
        unified=figures.shares_memory,
        memory_bytes=figures.memory_bytes or 0,
        free_bytes=figures.free_bytes,
        bandwidth=told if told.bytes_per_second else nvidia_bandwidth(figures.name),
        driver=driver,
    )


def parse_information(text: str) -> str:
    """The name of a GPU of /proc/driver/nvidia/gpus/SLOT/information; "" where there is none."""
    lines = (line.partition(":") for line in text.splitlines())
    return next((name.strip() for key, _, name in lines if key.strip() == "Model"), "")


def _import() -> ModuleType:
    return importlib.import_module("pynvml")


def _ask(nvml: ModuleType) -> tuple[Gpu, ...]:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        driver = nvml.nvmlSystemGetDriverVersion()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(gpu_of(_figures(nvml, handle), driver) for handle in handles)
    except nvml.NVMLError:
        return ()
    finally:
        nvml.nvmlShutdown()


def _figures(nvml: ModuleType, handle: Any) -> Figures:
    """Of one GPU. Where NVML does not support its memory, or tells 0, that is the RAM (GB10, Jetson)."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = memory.total, memory.free
        shares = total == 0
    except nvml.NVMLError_NotSupported:
        total, free, shares = None, None, True
    except nvml.NVMLError:
        total, free, shares = None, None, False
    return Figures(
        name=nvml.nvmlDeviceGetName(handle),
        memory_bytes=total,
        free_bytes=None if shares else free,
        shares_memory=shares,
        memory_megahertz=_told(nvml, lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        bus_bits=_told(nvml, lambda: nvml.nvmlDeviceGetMemoryBusWidth(handle)),
    )


def _told(nvml: ModuleType, question: Callable[[], Answer]) -> Answer | None:
    try:
        return question()
    except nvml.NVMLError:
        return None


def _from_files(root: Path) -> tuple[Gpu, ...]:
    """By name alone, where the library is missing or does not match the kernel's driver."""
    try:
        folders = sorted((root / "proc/driver/nvidia/gpus").iterdir())
    except OSError:
        return ()
    names = (parse_information(read_text(folder / "information") or "") for folder in folders)
    return tuple(Gpu(name=name, vendor=GpuVendor.NVIDIA) for name in names if name)
