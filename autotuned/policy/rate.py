"""How fast a download goes, and how long it still takes.

``services.shared_pull`` asks with the latest progress. Invariant: a pause makes the rate fall, never
negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

WINDOW_SECONDS = 8.0
LEAST_SECONDS = 0.5
LONGEST_LEFT_SECONDS = 100 * 24 * 3600.0


class Sample(NamedTuple):
    """Bytes that were here at a moment, in monotonic seconds."""

    seconds: float
    done_bytes: int


def kept(samples: Sequence[Sample], sample: Sample) -> tuple[Sample, ...]:
    """The samples of the window, the new one last. Bytes that went back begin a new window."""
    if samples and sample.done_bytes < samples[-1].done_bytes:
        return (sample,)
    recent = [each for each in samples if sample.seconds - each.seconds <= WINDOW_SECONDS]
    return (*recent, sample)


def bytes_per_second(samples: Sequence[Sample]) -> int:
    """The rate over the window; 0 while it is too short to tell."""
    if not samples:
        return 0
    seconds = samples[-1].seconds - samples[0].seconds
    if seconds < LEAST_SECONDS:
        return 0
    return round((samples[-1].done_bytes - samples[0].done_bytes) / seconds)


def left_seconds(samples: Sequence[Sample], total_bytes: int) -> float | None:
    """Time to the end at that rate; None while nobody can tell, and where nobody would wait so long."""
    rate = bytes_per_second(samples)
    if not rate or not total_bytes:
        return None
    left = max(total_bytes - samples[-1].done_bytes, 0) / rate
    return left if left <= LONGEST_LEFT_SECONDS else None
