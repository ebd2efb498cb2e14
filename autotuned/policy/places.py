"""What models may take of each kind of memory in the machine: RAM, memory shared with a GPU, a GPU's own.

``recommend``, ``download_fit`` and ``services.hardware`` reckon with it. Invariant: memory of GPUs comes
first, the fastest before others; what can be had now is never more than what may ever be taken; each figure
has its reason; and there is always one kind that an engine uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from autotuned.core.engine import EngineState, EngineStatus
from autotuned.core.hardware import Bandwidth, Gpu, GpuVendor, Hardware
from autotuned.core.memory import MemoryView
from autotuned.core.plan import Reason
from autotuned.policy.fit import margin_of
from autotuned.policy.residency import evictable_bytes
from autotuned.policy.wording import size

# What the system and the programs that are always open take of the RAM of a person's machine.
SYSTEM_BYTES = 2 << 30
SYSTEM_SHARE_DIVISOR = 16
# What driver, display and the runtime of the engine take of a GPU's own memory.
GPU_SYSTEM_BYTES = 512 << 20
GPU_SYSTEM_SHARE_DIVISOR = 25
# What firmware sets aside of the RAM for integrated graphics unasked; more than that is meant for models.
MOST_CARVED_OUT_BYTES = 4 << 30
CPU = "CPU"


class Place(Enum):
    """Where the memory of a model lies."""

    RAM = "RAM"
    UNIFIED = "unified memory"
    GPU = "GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceBudget:
    """What models may take of one kind of memory.

    ``capacity_bytes`` when other programs take what they usually take; ``available_bytes`` now: of RAM with
    the margin left free and idle models counted as gone, of a GPU what its driver calls free. ``is_used``: an
    engine that is ready computes there.
    """

    place: Place
    name: str
    capacity_bytes: int
    available_bytes: int
    bandwidth: Bandwidth
    reasons: tuple[Reason, ...]
    is_used: bool = True


def not_now(budget: PlaceBudget) -> Reason:
    """That a model which would fit there does not at the moment, and how to make room."""
    room = '"autotunectl hardware" tells which applications to close'
    if budget.place is Place.GPU:
        room = "unload models from the GPU, or close programs that use it"
    return Reason("not-now", f"Now only {size(budget.available_bytes)} can be had; {room}.")


def computes_on_gpu(statuses: Sequence[EngineStatus]) -> bool:
    """Whether one of these engines of the machine is ready and uses a GPU where there is one.

    A server that does not tell what it computes with takes a GPU that it finds.
    """
    return any(status.state is EngineState.READY and status.accelerator != CPU for status in statuses)


def places_of(budgets: Sequence[PlaceBudget], status: EngineStatus) -> tuple[PlaceBudget, ...]:
    """The budgets without those of GPUs that this engine does not use."""
    uses_gpu = computes_on_gpu([status])
    return tuple(budget for budget in budgets if uses_gpu or budget.place is not Place.GPU)


def place_budgets(
    hardware: Hardware, memory: MemoryView, *, margin_bytes: int, uses_gpu: bool
) -> tuple[PlaceBudget, ...]:
    """The budgets, those of GPUs first; at least that of the RAM, ``UNIFIED`` where a GPU computes there."""
    margin = margin_of(memory.reading, margin_bytes)
    budgets = [_main_budget(hardware, memory, margin, uses_gpu=uses_gpu)]
    budgets += [
        _gpu_budget(gpus, uses_gpu=uses_gpu)
        for vendor in GpuVendor
        if (gpus := [gpu for gpu in hardware.gpus if gpu.vendor is vendor and _has_memory(gpu)])
    ]
    return tuple(
        sorted(
            budgets, key=lambda budget: (budget.place is not Place.GPU, -budget.bandwidth.bytes_per_second)
        )
    )


def _has_memory(gpu: Gpu) -> bool:
    """Whether it has memory that is no longer the RAM's, and enough of it for models."""
    return gpu.memory_bytes > (MOST_CARVED_OUT_BYTES if gpu.unified else 0)


def _main_budget(hardware: Hardware, memory: MemoryView, margin_bytes: int, *, uses_gpu: bool) -> PlaceBudget:
    reading = memory.reading
    capacity, why = _ram_capacity(memory, margin_bytes)
    reasons = [why]
    bandwidth, place = hardware.memory_bandwidth, Place.RAM
    shared = [gpu for gpu in hardware.gpus if gpu.unified and gpu.vendor in _FAST_UNIFIED]
    if shared and not uses_gpu:
        reasons.append(GPU_UNUSED)
    elif shared:
        place = Place.UNIFIED
        if shared[0].bandwidth.bytes_per_second:
            bandwidth = shared[0].bandwidth
    wired = reading.wired_limit_bytes
    if wired and wired < capacity:
        capacity = wired
        text = f"macOS lets its GPU take {size(wired)} of {size(reading.total_bytes)}."
        reasons[0] = Reason("wired-limit", text)
    available = (
        reading.available_bytes + evictable_bytes(memory.residents) - memory.reserved_bytes - margin_bytes
    )
    return PlaceBudget(
        place=place,
        name=place.value,
        capacity_bytes=capacity,
        available_bytes=min(max(available, 0), capacity),
        bandwidth=bandwidth,
        reasons=tuple(reasons),
    )


# Integrated graphics of others read no faster than their processors do, and few engines use them.
_FAST_UNIFIED = frozenset({GpuVendor.APPLE, GpuVendor.NVIDIA})


def _ram_capacity(memory: MemoryView, margin_bytes: int) -> tuple[int, Reason]:
    """In a control group all but the margin: what others take is outside of it."""
    total = memory.reading.total_bytes
    if memory.reading.limit_bytes is not None:
        text = f"{size(total)} is the limit of the control group; {size(margin_bytes)} stay free."
        return max(total - margin_bytes, 0), Reason("limit", text)
    others = SYSTEM_BYTES + total // SYSTEM_SHARE_DIVISOR
    text = f"{size(total)}, less {size(others)} for the system and for programs that are always open."
    return max(total - others, 0), Reason("system", text)


def _gpu_budget(gpus: Sequence[Gpu], *, uses_gpu: bool) -> PlaceBudget:
    """One budget for all GPUs of a maker: engines spread the layers of a model over them."""
    total = sum(gpu.memory_bytes for gpu in gpus)
    taken = sum(_driver_bytes(gpu) for gpu in gpus)
    free = sum(_free_bytes(gpu) for gpu in gpus)
    counts = Counter(gpu.name for gpu in gpus)
    text = f"{size(total)}, less {size(taken)} for the driver and the display."
    reasons = [Reason("driver", text)]
    if not uses_gpu:
        reasons.append(GPU_UNUSED)
    return PlaceBudget(
        place=Place.GPU,
        name=" + ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items()),
        capacity_bytes=total - taken,
        available_bytes=min(free, total - taken),
        bandwidth=_joint_bandwidth(gpus),
        reasons=tuple(reasons),
        is_used=uses_gpu,
    )


def _joint_bandwidth(gpus: Sequence[Gpu]) -> Bandwidth:
    """Of GPUs that have layers in proportion to their memory, which a token passes one after the other."""
    slowest = min(gpus, key=lambda gpu: gpu.bandwidth.bytes_per_second).bandwidth
    if not slowest.bytes_per_second:
        return slowest
    seconds = sum(gpu.memory_bytes / gpu.bandwidth.bytes_per_second for gpu in gpus)
    return replace(slowest, bytes_per_second=round(sum(gpu.memory_bytes for gpu in gpus) / seconds))


GPU_UNUSED = Reason(
    "gpu-unused",
    "No engine that is ready computes on the GPU; start Ollama, or set llamacpp.server to a build of "
    "llama.cpp that does.",
)


def _driver_bytes(gpu: Gpu) -> int:
    return min(GPU_SYSTEM_BYTES + gpu.memory_bytes // GPU_SYSTEM_SHARE_DIVISOR, gpu.memory_bytes)


def _free_bytes(gpu: Gpu) -> int:
    """Free memory without what the engine's runtime itself takes; where nobody tells, what there may be."""
    if gpu.free_bytes is None:
        return gpu.memory_bytes - _driver_bytes(gpu)
    return max(gpu.free_bytes - GPU_SYSTEM_BYTES, 0)
