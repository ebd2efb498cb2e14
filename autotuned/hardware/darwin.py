"""What macOS alone tells of memory: how pressed it is, and how much of it its GPU may wire.

``hardware.memory`` asks on Darwin. Figures come from sysctl(3) within this process; what a version of
macOS does not have is None.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

Sysctl = Callable[[str], bytes | None]
"""Raw content of a variable; None where there is none."""

_PRESSURE_LEVELS = frozenset({1, 2, 4})
_LARGEST_BYTES = 64
_BYTES_PER_MEGABYTE = 1 << 20
_LARGE_MACHINE_BYTES = 36 << 30


def decode_integer(raw: bytes | None) -> int | None:
    """A C ``int`` or ``long`` in the byte order of every Mac that runs today's macOS."""
    if raw is None or len(raw) not in {4, 8}:
        return None
    return int.from_bytes(raw, "little", signed=True)


def pressure_level(sysctl: Sysctl) -> int | None:
    """1 normal, 2 warning, 4 critical: what colours the graph of Activity Monitor."""
    level = decode_integer(sysctl("kern.memorystatus_vm_pressure_level"))
    return level if level in _PRESSURE_LEVELS else None


def wired_limit_bytes(sysctl: Sysctl, total_bytes: int) -> int | None:
    """The most that the GPU may wire; None on Macs without Apple silicon.

    A limit of 0 is macOS's own: what Metal reports there as ``recommendedMaxWorkingSetSize``, two
    thirds of the memory, and three quarters from 36 GiB.
    """
    megabytes = decode_integer(sysctl("iogpu.wired_limit_mb"))
    if megabytes is None or megabytes < 0:
        return None
    if megabytes > 0:
        return min(total_bytes, megabytes * _BYTES_PER_MEGABYTE)
    return total_bytes * 3 // 4 if total_bytes >= _LARGE_MACHINE_BYTES else total_bytes * 2 // 3


def read_sysctl(name: str) -> bytes | None:
    """Reads a variable from the kernel; None where it has none, or this is not macOS."""
    try:
        ask = ctypes.CDLL(None).sysctlbyname
    except (OSError, AttributeError, TypeError):
        return None
    content = ctypes.create_string_buffer(_LARGEST_BYTES)
    size = ctypes.c_size_t(_LARGEST_BYTES)
    if ask(name.encode(), content, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    return content.raw[: size.value]
