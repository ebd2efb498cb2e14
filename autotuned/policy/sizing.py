"""From bytes to tokens, and from tokens to a context.

``plan`` picks contexts with it; ``services`` estimates prompts that no tokenizer has counted yet
and learns from those that one has. Contexts come in buckets, so that requests of about the same
size share one load, and a loaded context is kept for as long as it suffices.
Invariant: more tokens never give a smaller context.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import ceil

from autotuned.core.plan import LoadShape, Need
from autotuned.policy.kv import padded_context
from autotuned.policy.profiles import PROFILES

SPARE_TOKENS = 256
SMALL_REPLY_TOKENS = 256
SMALLEST_CONTEXT_TOKENS = 512
ASSUMED_TRAIN_CONTEXT_TOKENS = 4096

_COMMON_BUCKETS = (512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768)
_LARGE_BUCKETS = tuple(tokens for power in range(14, 30) for tokens in (3 << power, 4 << power))
BUCKETS = _COMMON_BUCKETS + _LARGE_BUCKETS

DEFAULT_TOKENS_PER_BYTE = 0.5
LONGEST_TOKEN_BYTES = 128
TEMPLATE_TOKENS_PER_MESSAGE = 8
LEAST_LEARNABLE_BYTES = 256
_DECAY = 0.125


def snap_up(tokens: int, ceiling: int) -> int:
    """The smallest bucket that holds ``tokens``, but at most ``ceiling``."""
    index = bisect_left(BUCKETS, tokens)
    return min(BUCKETS[index], ceiling) if index < len(BUCKETS) else ceiling


def snap_down(tokens: int, floor: int) -> int:
    """The largest bucket within ``tokens``, but at least ``floor``."""
    index = bisect_right(BUCKETS, tokens)
    return max(BUCKETS[index - 1], floor) if index else floor


def buckets_within(ceiling: int) -> tuple[int, ...]:
    """The contexts that a model of this ceiling can have: the buckets below it, and all of it."""
    return (*BUCKETS[: bisect_left(BUCKETS, ceiling)], ceiling)


def reserved_reply(need: Need) -> int:
    """Tokens to reserve for the reply: down to half of it where that keeps to the profile's context."""
    cap = PROFILES[need.profile].context_tokens - need.prompt_tokens - SPARE_TOKENS
    return max(min(need.reply_tokens, cap), (need.reply_tokens + 1) // 2)


def least_reply(need: Need) -> int:
    """Room for a small reply, which memory that is short still has to have."""
    return min(reserved_reply(need), SMALL_REPLY_TOKENS)


def needed_context(need: Need) -> int:
    """Tokens to plan for: prompt, reply and a spare, at least 512; or the request's own context."""
    if need.context_tokens is not None:
        return need.context_tokens
    return max(need.prompt_tokens + reserved_reply(need) + SPARE_TOKENS, SMALLEST_CONTEXT_TOKENS)


def least_context(need: Need, slots_count: int, ceiling: int) -> int:
    """The smallest context that serves the request, in the engine's steps: with a small reply only.

    Slots that share it have the smallest context each. Not below what the model has at most.
    """
    own = max(need.prompt_tokens + least_reply(need) + SPARE_TOKENS, SMALLEST_CONTEXT_TOKENS)
    return min(padded_context(own + (slots_count - 1) * SMALLEST_CONTEXT_TOKENS), ceiling)


def suffices(shape: LoadShape, need: Need) -> bool:
    """Whether a loaded context holds prompt and reply, or is as large as the request wants it.

    The spare is for sizing alone: a conversation may use it up before the model is loaded again.
    """
    if need.context_tokens is not None:
        return shape.context_tokens >= need.context_tokens
    room = shape.context_tokens - need.prompt_tokens
    return room >= need.reply_tokens or room >= reserved_reply(need)


def holds_small_reply(shape: LoadShape, need: Need) -> bool:
    """Whether a loaded context could at least answer shortly; a context that was asked for is not cut."""
    return need.context_tokens is None and shape.context_tokens >= need.prompt_tokens + least_reply(need)


def estimate_prompt_tokens(prompt_bytes: int, messages_count: int, tokens_per_byte: float) -> int:
    """Tokens that a prompt probably has, rounded up, with what the template adds to each message."""
    text_tokens = max(ceil(prompt_bytes * tokens_per_byte), least_prompt_tokens(prompt_bytes))
    return text_tokens + messages_count * TEMPLATE_TOKENS_PER_MESSAGE


def learn_tokens_per_byte(
    known: float | None, prompt_bytes: int, prompt_tokens: int, messages_count: int = 0
) -> float:
    """A model's tokens per byte after one more prompt was counted; ``known`` is None for the first.

    It rises at once, because too small a context costs a load, and falls by an eighth of the way,
    because too large a one costs only memory. ``messages_count`` takes the template's share off.
    Short prompts say little and teach nothing. The result is in (0, 1]: no token is shorter than a byte.
    """
    before = DEFAULT_TOKENS_PER_BYTE if known is None else known
    if prompt_bytes < LEAST_LEARNABLE_BYTES:
        return before
    text_tokens = prompt_tokens - messages_count * TEMPLATE_TOKENS_PER_MESSAGE
    seen = min(max(text_tokens / prompt_bytes, 1 / LONGEST_TOKEN_BYTES), 1.0)
    if seen >= before:
        return seen
    return before + (seen - before) * _DECAY


def least_prompt_tokens(prompt_bytes: int) -> int:
    """Tokens that a prompt has at least: no tokenizer has tokens of more than 128 bytes."""
    return -(-prompt_bytes // LONGEST_TOKEN_BYTES)
