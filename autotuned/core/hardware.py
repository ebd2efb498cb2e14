"""What the machine is made of, as values. ``hardware`` reads them, ``policy`` decides with them.

Invariant: what the system does not tell is 0, "" or UNKNOWN, never a guess; a figure that was looked up
says so beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class GpuVendor(Enum):
    """Who made a GPU."""

    NVIDIA = "nvidia"
    AMD = "amd"
    APPLE = "apple"
    INTEL = "intel"


class PowerSource(Enum):
    """What feeds the machine."""

    UNKNOWN = "unknown"
    MAINS = "mains"
    BATTERY = "battery"


class ThermalState(Enum):
    """How far heat slows the machine, as macOS calls it; elsewhere from what the kernel counts."""

    UNKNOWN = "unknown"
    NOMINAL = "nominal"
    FAIR = "fair"
    SERIOUS = "serious"
    CRITICAL = "critical"


class BandwidthSource(Enum):
    """Where a memory bandwidth comes from."""

    UNKNOWN = "unknown"
    MEASURED = "measured"
    """Read from memory by all cores, on this machine."""
    SPECIFIED = "specified"
    """What the maker says, or clock times width: what no program quite reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """Bytes that memory gives a second; 0 where nobody knows."""

    bytes_per_second: int = 0
    source: BandwidthSource = BandwidthSource.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The processor. ``performance_cores_count`` is 0 where all cores are alike.

    ``instruction_sets`` has those that matter for inference, for example "AVX2", "AVX512", "AMX", "NEON",
    "DOTPROD", "I8MM", "SVE"; ``architecture`` is "x86_64" or "arm64".
    """

    model: str
    architecture: str
    physical_cores_count: int
    logical_cores_count: int
    performance_cores_count: int = 0
    instruction_sets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A graphics processor. One that is ``unified`` reads the RAM.

    ``memory_bytes`` is its own, or what firmware took from the RAM for it. ``free_bytes`` of it is None
    where nobody tells.
    """

    name: str
    vendor: GpuVendor
    unified: bool = False
    memory_bytes: int = 0
    free_bytes: int | None = None
    bandwidth: Bandwidth = Bandwidth()
    driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Power and heat. ``battery_percent`` is None without a battery."""

    source: PowerSource = PowerSource.UNKNOWN
    battery_percent: int | None = None
    thermal: ThermalState = ThermalState.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The machine. ``system`` is the operating system with its version, ``model`` what the maker calls it.

    ``memory_bytes`` is the RAM that is built in, whatever a control group leaves of it.
    """

    system: str
    model: str
    cpu: Cpu
    memory_bytes: int
    memory_bandwidth: Bandwidth = Bandwidth()
    gpus: tuple[Gpu, ...] = ()
    power: Power = Power()


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Programs of one name that run for this user: what closing them would free.

    ``memory_bytes`` are their own pages, not those that they share with others.
    """

    name: str
    processes_count: int
    memory_bytes: int
