"""What makers say of GPUs that do not tell it themselves: names and memory bandwidths, from a data file.

``hardware.apple``, ``hardware.drm`` and ``hardware.nvidia`` look things up. Invariant: what is not in the
file is unknown; each line of it has the addresses of its sources, and where the figure was computed what was
read there: the data rate of a pin and the width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from autotuned.core.hardware import Bandwidth, BandwidthSource

_FILE = Path(__file__).parents[1] / "data" / "bandwidths.json"
_BYTES_PER_GIGABYTE = 10**9  # as makers count
_BYTES_PER_GIBIBYTE = 1 << 30
_UNKNOWN = Bandwidth()


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """One line of the file. ``memory_gib`` and ``cores_count`` are 0 where they do not matter."""

    name: str
    device: str = ""
    revision: str = ""
    unified: bool = False
    bandwidth: Bandwidth = _UNKNOWN
    memory_gib: int = 0
    cores_count: int = 0

    @property
    def memory_bytes(self) -> int:
        """Memory of its own; 0 where the line says nothing of it."""
        return self.memory_gib * _BYTES_PER_GIBIBYTE


def specified_bandwidth(bytes_per_second: float) -> Bandwidth:
    """A bandwidth by the maker's word; unknown where there is none."""
    if bytes_per_second <= 0:
        return Bandwidth()
    return Bandwidth(bytes_per_second=round(bytes_per_second), source=BandwidthSource.SPECIFIED)


def apple_bandwidth(chip: str, cores_count: int, memory_bytes: int) -> Bandwidth:
    """Of a chip of Apple; some come with several bandwidths, by the cores or the memory that they have."""
    for line in _lines("apple"):
        fits = (
            line.name == chip
            and line.cores_count in {0, cores_count}
            and line.memory_bytes in {0, memory_bytes}
        )
        if fits:
            return line.bandwidth
    return Bandwidth()


def nvidia_bandwidth(name: str) -> Bandwidth:
    """Of a GPU whose driver does not tell clock and width of its memory."""
    return next((line.bandwidth for line in _lines("nvidia") if line.name == name), Bandwidth())


def amd_specification(device: str, revision: str) -> Specification | None:
    """By the PCI numbers of a GPU in hexadecimal, lower case; some devices differ by their revision."""
    for line in _lines("amd"):
        if line.device == device and line.revision in {"", revision}:
            return line
    return None


def intel_specifications(device: str) -> tuple[Specification, ...]:
    """By the PCI number of a discrete GPU: several where it comes with more or less memory."""
    return tuple(line for line in _lines("intel") if line.device == device)


@cache
def _lines(maker: str) -> tuple[Specification, ...]:
    return tuple(
        Specification(
            name=line.get("name") or line["chip"],
            device=line.get("device", ""),
            revision=line.get("revision", ""),
            unified=line.get("unified", False),
            bandwidth=specified_bandwidth(line.get("gigabytes_per_second", 0) * _BYTES_PER_GIGABYTE),
            memory_gib=line.get("memory_gib", 0),
            cores_count=line.get("cores", 0),
        )
        for line in json.loads(_FILE.read_bytes())[maker]
    )
