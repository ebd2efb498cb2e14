"""How a load fits into memory: what it takes against what can be had.

``plan`` and ``noswap`` classify with it. Invariant: a larger load never fits better, and more memory
never makes a load fit worse.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from autotuned.core.memory import MemoryReading
from autotuned.core.plan import Fit, FitClass
from autotuned.policy.cache_types import CacheTypes
from autotuned.policy.draft import Draft
from autotuned.policy.residency import evictable_bytes
from autotuned.policy.situation import Situation
from autotuned.policy.sizing import buckets_within

LARGEST_MARGIN_DIVISOR = 6
SYSTEM_SHARE_DIVISOR = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Memory that a load can have.

    ``free_bytes`` without anybody leaving, but counting what the model itself would free;
    ``evictable_bytes`` of idle models; ``margin_bytes`` should stay free; ``capacity_bytes`` is what a
    model may ever take on this machine; ``swap_bytes`` is free room on the disk.
    """

    free_bytes: int
    evictable_bytes: int
    margin_bytes: int
    capacity_bytes: int
    swap_bytes: int

    @property
    def available_bytes(self) -> int:
        """All that can be had without swapping."""
        return max(self.free_bytes + self.evictable_bytes, 0)

    @property
    def usable_bytes(self) -> int:
        """What can be had while the margin stays free."""
        return max(self.free_bytes + self.evictable_bytes - self.margin_bytes, 0)


def capacity_of(reading: MemoryReading) -> int:
    """Bytes that a model may ever take: a twentieth of the memory is the system's.

    What a Mac lets its GPU wire bounds a model, too.
    """
    capacity = reading.total_bytes - reading.total_bytes // SYSTEM_SHARE_DIVISOR
    return min(capacity, reading.wired_limit_bytes) if reading.wired_limit_bytes else capacity


def margin_of(reading: MemoryReading, configured_bytes: int) -> int:
    """Bytes that a load leaves free: what is configured, at most a sixth of the memory."""
    return min(configured_bytes, reading.total_bytes // LARGEST_MARGIN_DIVISOR)


def budget_of(situation: Situation) -> Budget:
    """The budget of a load now."""
    reading = situation.memory.reading
    return Budget(
        free_bytes=reading.available_bytes + situation.loaded_freed_bytes - situation.memory.reserved_bytes,
        evictable_bytes=evictable_bytes(situation.memory.residents),
        margin_bytes=margin_of(reading, situation.defaults.margin_bytes),
        capacity_bytes=capacity_of(reading),
        swap_bytes=reading.swap_free_bytes,
    )


def classify(required_bytes: int, budget: Budget) -> FitClass:
    """SAFE leaves the margin, MARGINAL cuts it, SWAP_RISK needs the disk, and OOM would be killed."""
    if required_bytes > min(budget.capacity_bytes, budget.available_bytes + budget.swap_bytes):
        return FitClass.OOM
    if required_bytes <= budget.usable_bytes:
        return FitClass.SAFE
    if required_bytes <= budget.available_bytes:
        return FitClass.MARGINAL
    return FitClass.SWAP_RISK


def safe_context(draft: Draft, types: CacheTypes, budget: Budget, ceiling: int) -> int:
    """The largest context that leaves the margin free; 0 where none does."""
    return _largest(draft, types, ceiling, min(budget.usable_bytes, budget.capacity_bytes))


def possible_context(draft: Draft, types: CacheTypes, budget: Budget, ceiling: int) -> int:
    """The largest context that memory and swap together hold; 0 where none does."""
    held_bytes = min(budget.capacity_bytes, budget.available_bytes + budget.swap_bytes)
    return _largest(draft, types, ceiling, held_bytes)


def fit_of(required_bytes: int, budget: Budget, safe_context_tokens: int) -> Fit:
    """The fit of a load that takes so much."""
    return Fit(
        fit_class=classify(required_bytes, budget),
        required_bytes=required_bytes,
        available_bytes=budget.available_bytes,
        safe_context_tokens=safe_context_tokens,
    )


def _largest(draft: Draft, types: CacheTypes, ceiling: int, limit_bytes: int) -> int:
    """All of the context is tried first, since it often fits; then what the state's bytes a token suggest."""
    contexts = buckets_within(ceiling)
    low, high = 0, len(contexts)  # those below ``low`` fit, those from ``high`` on do not
    middle = high - 1
    while low < high:
        footprint = draft.footprint(draft.shape(contexts[middle], types))
        left_bytes = limit_bytes - footprint.total_bytes
        state_bytes = footprint.kv_cache_bytes
        guess = contexts[middle] * max(left_bytes + state_bytes, 0) // max(state_bytes, 1)
        if left_bytes >= 0:
            low = middle + 1
        else:
            high = middle
        middle = min(max(bisect_right(contexts, guess) - 1, low), high - 1)
    return contexts[low - 1] if low else 0
