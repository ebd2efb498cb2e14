"""What is remembered of a finished request."""

from __future__ import annotations

from dataclasses import dataclass

from autotuned.core.plan import LoadShape


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One finished request. ``error_reason`` is empty for one that succeeded.

    ``finish_reason`` is "stop", "length", "tool_calls", or "cancelled" or "" for one that ended
    without an answer. ``shape`` is None for a request that never met a loaded model.
    Times are seconds; ``started_at`` is seconds since the epoch.
    """

    request_id: str
    model: str
    engine: str
    started_at: float
    finish_reason: str
    error_reason: str
    prompt_tokens: int
    cached_tokens: int
    reply_tokens: int
    queue_seconds: float
    load_seconds: float
    time_to_first_token_seconds: float
    prefill_seconds: float
    decode_seconds: float
    total_seconds: float
    decode_tokens_per_second: float
    shape: LoadShape | None
