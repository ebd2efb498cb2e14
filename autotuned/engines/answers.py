"""What a server answers, taken with care: its text, its counts and its times.

Every adapter reads answers with it. Invariant: whatever a server sends is either one of ``UNREADABLE``, or
becomes numbers that can be stored, shown and sent on.
"""

from __future__ import annotations

from typing import Any

import msgspec

UNREADABLE = (ValueError, RecursionError)
"""What decoding raises: an error of msgspec's, bytes that are no text, or depth without end."""

# The largest number that every JSON reader keeps exactly, and a time that no answer takes.
MOST_COUNT = 1 << 53
MOST_SECONDS = 1e8
# Every number that is planned with stays small below it.
MOST_CONTEXT_TOKENS = 1 << 30


def count(value: float | None) -> int:
    """A number of tokens or bytes; 0 where there is none, or less."""
    if value is None or value <= 0:
        return 0
    return int(value) if value < MOST_COUNT else MOST_COUNT


def context(value: float | None) -> int:
    """Tokens of a context; 0, which is unknown, where that is none that a model has."""
    tokens = count(value)
    return tokens if tokens <= MOST_CONTEXT_TOKENS else 0


def seconds(value: float | None) -> float:
    """A time that something took; 0 where there is none, or less."""
    if value is None or value <= 0:
        return 0.0
    return min(MOST_SECONDS, value)


def json_text(value: Any) -> str:
    """JSON of what was decoded from JSON."""
    try:
        return msgspec.json.encode(value).decode()
    except OverflowError:
        # Of whole numbers msgspec writes those of 64 bits alone; the daemon does without Python's own
        # writer until it meets a larger one.
        import json  # noqa: PLC0415 - see above

        return json.dumps(value)
