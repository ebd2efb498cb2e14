# ruff: noqa: N802 - the names are those of the library
"""A driver of NVIDIA as ``pynvml`` shows it: its own constants and errors over GPUs that are only figures.

Like the real library it answers between ``nvmlInit`` and ``nvmlShutdown`` alone, and raises what ``pynvml``
raises for an index or a question that it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pynvml


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU; ``memory`` is total and free, or the code of the error that NVML gives instead."""

    name: str
    memory: tuple[int, int] | int
    clock_megahertz: int | None = None
    bus_bits: int | None = None


class FakeNvml(ModuleType):
    """``init_error`` and ``count_error`` are codes of errors that these calls raise."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVML_CLOCK_MEM = pynvml.NVML_CLOCK_MEM

    def __init__(self, *devices: Device, init_error: int = 0, count_error: int = 0) -> None:
        super().__init__("pynvml")
        self._devices = devices
        self._init_error = init_error
        self._count_error = count_error
        self.open_count = 0

    def nvmlInit(self):
        _raise_if(self._init_error)
        self.open_count += 1

    def nvmlShutdown(self):
        self._check()
        self.open_count -= 1

    def nvmlSystemGetDriverVersion(self):
        self._check()
        return "580.173.02"

    def nvmlDeviceGetCount(self):
        self._check()
        _raise_if(self._count_error)
        return len(self._devices)

    def nvmlDeviceGetHandleByIndex(self, index):
        self._check()
        if not 0 <= index < len(self._devices):
            _raise_if(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self._devices[index]

    def nvmlDeviceGetName(self, handle):
        self._check()
        return handle.name

    def nvmlDeviceGetMemoryInfo(self, handle):
        self._check()
        if isinstance(handle.memory, int):
            _raise_if(handle.memory)
        total, free = handle.memory
        return SimpleNamespace(total=total, free=free, used=total - free)

    def nvmlDeviceGetMaxClockInfo(self, handle, kind):
        self._check()
        if kind != pynvml.NVML_CLOCK_MEM:
            _raise_if(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return _told(handle.clock_megahertz)

    def nvmlDeviceGetMemoryBusWidth(self, handle):
        self._check()
        return _told(handle.bus_bits)

    def _check(self):
        if self.open_count <= 0:
            _raise_if(pynvml.NVML_ERROR_UNINITIALIZED)


def _told(figure):
    if figure is None:
        _raise_if(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return figure


def _raise_if(code):
    if code:
        raise pynvml.NVMLError(code)
