"""Memory as values: what a model takes, what the machine has, who is in it.

``hardware`` makes ``MemoryReading``, engines make ``Footprint`` from what they measured and
``policy.footprint`` from what it computes, ``services.residency`` joins them in ``MemoryView``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class SwapPolicy(Enum):
    """Whether a load may push memory to disk. NEVER refuses with ``WouldSwap`` instead."""

    ALLOW = "allow"
    NEVER = "never"


class PressureTier(IntEnum):
    """How much of the memory is in use, by ``policy.pressure``; higher is worse."""

    NORMAL = 0
    ELEVATED = 1
    HIGH = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes of one loaded model, by what they are for.

    ``weights_bytes`` as the file stores them; ``repacked_weights_bytes`` in an order that is faster to
    compute with: a second copy where the file is mapped, the only one where it is not.
    ``kv_cache_bytes`` include recurrent state and, in estimates, the checkpoints of models that cannot
    rewind, which an engine makes only while it serves; ``compute_bytes`` are the buffers of the
    computation, its output included, in memory from the first whole micro-batch on; ``process_bytes``
    is the engine's process without any of these. ``host_prompt_cache_bytes`` is the most that cache may
    grow to.
    """

    weights_bytes: int
    repacked_weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    process_bytes: int
    host_prompt_cache_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return (
            self.weights_bytes
            + self.repacked_weights_bytes
            + self.kv_cache_bytes
            + self.compute_bytes
            + self.process_bytes
            + self.host_prompt_cache_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """What the daemon and its workers may use, and how it stands now.

    Where they live in a control group with a limit, total and available are those of the group: a
    container is not its host. ``limit_bytes`` is that limit, None without one.
    ``available_bytes`` can be had without swapping; caches that the kernel would drop count as
    available. ``stalled_ratio`` is the share of the last 10 s in which some process waited for memory
    (PSI "some avg10"), 0 to 1; None where the system does not tell. ``os_pressure_level`` is macOS's
    own (1 normal, 2 warning, 4 critical); None elsewhere. ``wired_limit_bytes`` is what a Mac lets
    its GPU wire; None elsewhere.
    """

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int
    limit_bytes: int | None = None
    stalled_ratio: float | None = None
    os_pressure_level: int | None = None
    wired_limit_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemory:
    """Memory of one process: resident in all, and the part of it that is not pages of a file."""

    resident_bytes: int
    anonymous_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A loaded model as residency sees it: what unloading it would free, and whether it may leave.

    ``promised_bytes`` of those that it frees it has not taken yet: a cache that may still grow. They are
    part of ``MemoryView.reserved_bytes`` until it leaves.
    """

    model_id: str
    freed_bytes: int
    is_busy: bool
    last_used_at: float
    promised_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryView:
    """What a plan knows of memory: the reading, who is resident, what loads under way have reserved."""

    reading: MemoryReading
    pressure: PressureTier
    residents: tuple[Resident, ...] = ()
    reserved_bytes: int = 0
