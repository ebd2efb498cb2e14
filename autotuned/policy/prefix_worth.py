"""What a KV prefix is worth: whether to save one, to read one back, and which ones to keep on the disk.

``services.prefixes`` and its parts ask. Worth is time: the seconds of prefill that a state spares,
against the seconds that reading it takes and the disk that it fills.
Invariant: what these functions decide depends on their arguments alone; a prefix that is not worth
reading back is never worth writing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from autotuned.core.model import CacheLayout, ModelFacts
from autotuned.core.plan import LoadShape
from autotuned.core.prefix import SavedPrefix
from autotuned.policy import kv_mlx
from autotuned.policy.kv import kv_cache_bytes, padded_context

# Fewer tokens than this are computed sooner than they are read and kept account of.
LEAST_TOKENS = 64
# What a common solid-state disk reads, checksum included; one that is slower costs a little time.
READ_BYTES_PER_SECOND = 500e6
WRITE_BYTES_PER_SECOND = 250e6
# The engine keeps the token itself beside its keys and values.
TOKEN_BYTES = 4
# A prefix that nobody uses is worth half after a day.
HALF_LIFE_SECONDS = 24 * 3600.0
# Of the tokens that were promised, so many must come from the cache: the rest is the template's doing.
KEPT_PROMISE = 0.5


def state_bytes(facts: ModelFacts, shape: LoadShape, tokens_count: int) -> int:
    """How large a saved state of so many tokens is; with llama.cpp layers attend to everything."""
    if facts.cache_layout is CacheLayout.MLX:
        return TOKEN_BYTES * tokens_count + kv_mlx.saved_bytes(facts, shape, tokens_count)
    streams = 1 if shape.kv_unified else shape.slots_count
    cells = padded_context(shape.context_tokens) * streams
    return tokens_count * (TOKEN_BYTES + kv_cache_bytes(facts, shape) // max(cells, 1))


def recompute_seconds(
    *, tokens_count: int, evaluated_tokens: int, prefill_seconds: float, known_seconds_per_token: float
) -> float:
    """What computing a state of so many tokens from nothing takes.

    ``evaluated_tokens`` of them were just computed in ``prefill_seconds``; the others are taken to cost
    what tokens of this state cost before, or what these did where nothing is known (0).
    """
    own_rate = prefill_seconds / evaluated_tokens if evaluated_tokens else 0.0
    rate = known_seconds_per_token or own_rate
    return prefill_seconds + max(0, tokens_count - evaluated_tokens) * rate


def is_worth_restoring(
    saved: SavedPrefix, *, matched_tokens: int, live_tokens: int, context_tokens: int
) -> bool:
    """Whether reading this file beats computing what of it is not in the engine already.

    Only a state that is smaller than the context fits into it.
    """
    gained_tokens = matched_tokens - live_tokens
    if gained_tokens < LEAST_TOKENS or saved.tokens_count >= context_tokens:
        return False
    gained_seconds = saved.prefill_seconds * gained_tokens / max(saved.tokens_count, 1)
    return gained_seconds > saved.bytes_count / READ_BYTES_PER_SECOND


def is_worth_saving(
    *, tokens_count: int, saved_tokens: int, prefill_seconds: float, bytes_count: int
) -> bool:
    """Whether a state that is about to be lost goes to disk: reading it back will beat computing it.

    ``saved_tokens`` of it are in a file already.
    """
    if tokens_count - saved_tokens < LEAST_TOKENS:
        return False
    return prefill_seconds > bytes_count / READ_BYTES_PER_SECOND


def is_worth_a_checkpoint(
    *, tokens_count: int, saved_tokens: int, prefill_seconds: float, bytes_count: int
) -> bool:
    """Whether a state that stays in memory goes to disk, too, in case that the process dies.

    The whole state is written, so what is new in it must cost more to compute than that takes.
    """
    if not is_worth_saving(
        tokens_count=tokens_count,
        saved_tokens=saved_tokens,
        prefill_seconds=prefill_seconds,
        bytes_count=bytes_count,
    ):
        return False
    new_seconds = prefill_seconds * (tokens_count - saved_tokens) / tokens_count
    return new_seconds > bytes_count / WRITE_BYTES_PER_SECOND


def kept_promise(promised_tokens: int, cached_tokens: int) -> bool:
    """Whether the engine found in its cache what was read back for it: its count is the only proof."""
    return cached_tokens >= promised_tokens * KEPT_PROMISE


def to_evict(saved: Iterable[SavedPrefix], cap_bytes: int, now: float) -> tuple[str, ...]:
    """Ids to remove so that the rest is within the cap: the least worth for each byte first.

    What is larger than the cap by itself goes before all others: it can never stay.
    """
    candidates = sorted(saved, key=lambda each: (each.bytes_count <= cap_bytes, _worth_per_byte(each, now)))
    total_bytes = sum(each.bytes_count for each in candidates)
    leaving = []
    for each in candidates:
        if total_bytes <= cap_bytes and each.bytes_count <= cap_bytes:
            break
        leaving.append(each.id)
        total_bytes -= each.bytes_count
    return tuple(leaving)


def expired(saved: Iterable[SavedPrefix], seconds: float, now: float) -> tuple[str, ...]:
    """Ids of those that nobody used for longer than that."""
    return tuple(each.id for each in saved if now - each.last_used_at > seconds)


def _worth_per_byte(saved: SavedPrefix, now: float) -> float:
    """Seconds that it spares, for each byte; halved for each day since its last use."""
    age_seconds = max(0.0, now - saved.last_used_at)
    return saved.prefill_seconds * math.exp2(-age_seconds / HALF_LIFE_SECONDS) / max(saved.bytes_count, 1)
