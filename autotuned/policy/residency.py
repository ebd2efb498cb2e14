"""Who leaves memory: for a load that needs it, and because nobody came for a while.

``plan`` asks it for evictions, ``services.residency`` for what has expired.
Invariant: a busy model never leaves, and nobody leaves whose memory is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotuned.core.memory import Resident


def evictions(residents: Sequence[Resident], missing_bytes: int) -> tuple[str, ...]:
    """Ids of the idle models that leave, least recently used first, so that ``missing_bytes`` are freed.

    None of them could stay: without any one of them too little would be freed. All idle ones where
    even together they do not free enough.
    """
    leaving: list[Resident] = []
    freed_bytes = 0
    for resident in sorted(_idle(residents), key=_last_use):
        if freed_bytes >= missing_bytes:
            break
        leaving.append(resident)
        freed_bytes += resident.freed_bytes
    for resident in reversed(tuple(leaving)):
        if freed_bytes - resident.freed_bytes >= missing_bytes:
            leaving.remove(resident)
            freed_bytes -= resident.freed_bytes
    return tuple(resident.model_id for resident in leaving)


def evictable_bytes(residents: Sequence[Resident]) -> int:
    """What all idle models together would free."""
    return sum(resident.freed_bytes for resident in _idle(residents))


def expired(last_used_at: float, keep_alive_seconds: float, now: float) -> bool:
    """Whether an idle model has outstayed its time; a negative keep-alive never ends."""
    return keep_alive_seconds >= 0 and now - last_used_at >= keep_alive_seconds


def _idle(residents: Sequence[Resident]) -> list[Resident]:
    return [resident for resident in residents if not resident.is_busy and resident.freed_bytes > 0]


def _last_use(resident: Resident) -> float:
    return resident.last_used_at
