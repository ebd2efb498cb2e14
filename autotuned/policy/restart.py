"""When a model whose worker crashed is loaded again."""

from __future__ import annotations

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
STABLE_AFTER_SECONDS = 60.0


def crashes_in_a_row(before: int, lived_seconds: float) -> int:
    """Counts a crash; a worker that lived for a minute was stable, and starts the count anew."""
    return 1 if lived_seconds >= STABLE_AFTER_SECONDS else before + 1


def delay_seconds(crashes: int) -> float:
    """How long after the last crash the next load may begin: at once after one, then doubling up to 30 s."""
    if crashes < 2:  # noqa: PLR2004 - one crash is an accident
        return 0.0
    return float(min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(crashes - 2, 16)))
