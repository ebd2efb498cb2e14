"""How short memory is, as a tier, and what a tier costs.

``services.residency`` feeds each reading to ``next_tier``; plans take the tier's share of their headroom.
Invariant: a reading that stays within 3 points of a threshold changes the tier at most once.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from autotuned.core.memory import MemoryReading, PressureTier

ENTERED_AT_PERCENT: Mapping[PressureTier, int] = MappingProxyType(
    {PressureTier.ELEVATED: 80, PressureTier.HIGH: 88, PressureTier.CRITICAL: 93}
)
LEFT_BELOW_BY_POINTS = 3
STALLED_AT_RATIO = 0.10
STALLED_UNTIL_RATIO = 0.05
HEADROOM_PERCENT: Mapping[PressureTier, int] = MappingProxyType(
    {
        PressureTier.NORMAL: 100,
        PressureTier.ELEVATED: 90,
        PressureTier.HIGH: 75,
        PressureTier.CRITICAL: 50,
    }
)
_WORST_FIRST = (PressureTier.CRITICAL, PressureTier.HIGH, PressureTier.ELEVATED)
_OS_WARNING, _OS_CRITICAL = 2, 4


def next_tier(before: PressureTier, reading: MemoryReading) -> PressureTier:
    """The tier after one more reading.

    A tier is entered at 80, 88 and 93 % of memory in use and left 3 points lower. Processes that wait
    for memory raise it to HIGH, macOS's own warning to HIGH and its alarm to CRITICAL.
    """
    return max(_by_use(before, reading), _by_stalls(before, reading), _by_system(reading))


def used_percent(reading: MemoryReading) -> int:
    """Whole percent of the memory in use; 0 where the total is unknown."""
    if reading.total_bytes <= 0:
        return 0
    return max(0, (reading.total_bytes - reading.available_bytes) * 100 // reading.total_bytes)


def _by_use(before: PressureTier, reading: MemoryReading) -> PressureTier:
    used_hundredfold = (reading.total_bytes - reading.available_bytes) * 100
    for tier in _WORST_FIRST:
        percent = ENTERED_AT_PERCENT[tier]
        if tier <= before:
            percent -= LEFT_BELOW_BY_POINTS
        if reading.total_bytes > 0 and used_hundredfold >= percent * reading.total_bytes:
            return tier
    return PressureTier.NORMAL


def _by_stalls(before: PressureTier, reading: MemoryReading) -> PressureTier:
    if reading.stalled_ratio is None:
        return PressureTier.NORMAL
    threshold = STALLED_UNTIL_RATIO if before >= PressureTier.HIGH else STALLED_AT_RATIO
    return PressureTier.HIGH if reading.stalled_ratio >= threshold else PressureTier.NORMAL


def _by_system(reading: MemoryReading) -> PressureTier:
    level = reading.os_pressure_level or 0
    if level >= _OS_CRITICAL:
        return PressureTier.CRITICAL
    return PressureTier.HIGH if level >= _OS_WARNING else PressureTier.NORMAL
