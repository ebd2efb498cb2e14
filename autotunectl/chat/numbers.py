"""The numbers under an answer, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from autotunectl.output import format_seconds, one_line
from autotunectl.shapes import context_size

if TYPE_CHECKING:
    from autotune.chat import Reply
    from google.protobuf import duration_pb2

_WORTH_TELLING_SECONDS = 0.05
# Reasons that did not decide how large the context is.
_ASIDES = frozenset(
    {"batch", "estimated", "host-prompt-cache", "kv-cache", "margin", "memory", "recurrent-state"}
)


def numbers_line(reply: Reply) -> str:
    """Speed and token counts of one answer."""
    timings, usage = reply.timings, reply.usage
    parts = [f"TTFT {format_seconds(_seconds(timings.time_to_first_token_duration))}"]
    if timings.decode_tokens_per_second:
        parts.append(f"{timings.decode_tokens_per_second:,.1f} tokens/s")
    parts.append(f"prompt {usage.prompt_tokens:,} tokens{_cached(reply.cached_tokens)}")
    parts.append(f"reply {usage.reply_tokens:,} tokens")
    if (waited := _seconds(timings.queue_duration)) >= _WORTH_TELLING_SECONDS:
        parts.append(f"waited {format_seconds(waited)}")
    if (loaded := _seconds(timings.load_duration)) >= _WORTH_TELLING_SECONDS:
        parts.append(f"loaded in {format_seconds(loaded)}")
    if reply.finish_reason == "length":
        parts.append("cut at its length limit")
    return " · ".join(parts)


def context_line(reply: Reply) -> str:
    """The context of the loaded model, and why it is so large; ``ps --verbose`` has every reason."""
    plan = reply.plan
    reasons = " ".join(one_line(reason.text) for reason in plan.reasons if reason.code not in _ASIDES)
    return f"{context_size(plan.shape, reply.engine)}: {reasons}".rstrip(": ")


def numbers_text(reply: Reply) -> str:
    """Both, a line each."""
    return f"{numbers_line(reply)}\n{context_line(reply)}\n"


def conversation_numbers(replies: Sequence[Reply]) -> str:
    """What a conversation has taken so far; the last answer in full."""
    if not replies:
        return "No answer yet.\n"
    first_tokens = [_seconds(reply.timings.time_to_first_token_duration) for reply in replies]
    speeds = [reply.timings.decode_tokens_per_second for reply in replies]
    speeds = [speed for speed in speeds if speed]
    prompt_tokens = sum(reply.usage.prompt_tokens for reply in replies)
    cached_counts = [reply.cached_tokens for reply in replies if reply.cached_tokens is not None]
    cached = _cached(sum(cached_counts) if cached_counts else None)
    reply_tokens = sum(reply.usage.reply_tokens for reply in replies)
    average_speed = f" · {fmean(speeds):,.1f} tokens/s" if speeds else ""
    answers = "1 answer" if len(replies) == 1 else f"{len(replies):,} answers"
    return (
        f"{answers}: mean TTFT {format_seconds(fmean(first_tokens))}{average_speed}"
        f" · prompts {prompt_tokens:,} tokens{cached} · replies {reply_tokens:,} tokens\n"
        f"last: {numbers_text(replies[-1])}"
    )


def _cached(tokens: int | None) -> str:
    """Nothing where the engine does not tell."""
    return "" if tokens is None else f" ({tokens:,} cached)"


def _seconds(duration: duration_pb2.Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
