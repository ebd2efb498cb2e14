"""The numbers of an answer: usage, log probabilities, fingerprint, and the ``autotune`` object.

Every number is the engine's or the daemon's own; what is not known is left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from autotune.v1 import inference_service_pb2 as wire
from autotune.v1 import plan_pb2
from google.protobuf.duration_pb2 import Duration

FINISH_REASONS: Mapping[int, str] = {
    wire.FINISH_REASON_UNSPECIFIED: "stop",
    wire.FINISH_REASON_STOP: "stop",
    wire.FINISH_REASON_LENGTH: "length",
    wire.FINISH_REASON_TOOL_CALLS: "tool_calls",
}

_LOGPROB_FLOOR = -9999.0
"""What stands for minus infinity, which JSON cannot write."""


def usage_object(started: wire.Started, usage: wire.Usage) -> dict[str, Any]:
    """Token counts, as OpenAI names them. An engine that tells no cached ones leaves them out."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.reply_tokens,
        "total_tokens": usage.prompt_tokens + usage.reply_tokens,
    }
    if usage.cached_tokens or started.HasField("cached_tokens"):
        counts["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return counts


def autotune_object(started: wire.Started, timings: wire.Timings, profile: wire.Profile) -> dict[str, Any]:
    """What only this server tells: times in milliseconds, the context, and why the plan is as it is.

    ``profile`` is None where the request named none and the daemon's own applied, ``context_tokens`` where
    the engine decides the context and does not tell it.
    """
    shape = started.plan.shape
    named = wire.Profile.Name(profile).removeprefix("PROFILE_").lower()
    return {
        "request_id": started.request_id,
        "engine": started.engine,
        "profile": None if profile == wire.PROFILE_UNSPECIFIED else named,
        "ttft_ms": _milliseconds(timings.time_to_first_token_duration),
        "queue_ms": _milliseconds(timings.queue_duration),
        "load_ms": _milliseconds(timings.load_duration),
        "total_ms": _milliseconds(timings.total_duration),
        "tokens_per_second": round(timings.decode_tokens_per_second, 2),
        "prefill_tokens_per_second": round(timings.prefill_tokens_per_second, 2),
        "context_tokens": None if "context_tokens" in shape.assumed else shape.context_tokens,
        "plan": {
            "action": plan_pb2.PlanAction.Name(started.plan.action).removeprefix("PLAN_ACTION_").lower(),
            "kv_cache_bytes": started.plan.kv_cache_bytes,
            "memory_bytes": _taken_bytes(started.plan.footprint),
            "reasons": [{"code": reason.code, "text": reason.text} for reason in started.plan.reasons],
        },
    }


def _taken_bytes(footprint: plan_pb2.Footprint) -> int:
    """What the model takes whatever is asked: all but what its prompt cache may grow to."""
    return footprint.total_bytes - footprint.host_prompt_cache_bytes


def fingerprint(started: wire.Started) -> str:
    """Equal where equal seeds give equal answers: the engine and the shape in which it runs the model."""
    shape = started.plan.shape.SerializeToString(deterministic=True)
    return f"fp_{started.engine}_{zlib.crc32(shape):08x}"


def chat_logprobs(logprobs: Iterable[wire.TokenLogprob]) -> list[dict[str, Any]]:
    """The entries of ``choices[].logprobs.content``."""
    return [
        {
            "token": drawn.token,
            "logprob": finite(drawn.logprob),
            "bytes": list(drawn.token_bytes),
            "top_logprobs": [
                {"token": other.token, "logprob": finite(other.logprob), "bytes": list(other.token_bytes)}
                for other in drawn.alternatives
            ],
        }
        for drawn in logprobs
    ]


def completion_logprobs(logprobs: Iterable[wire.TokenLogprob], text_offset: int) -> dict[str, list[Any]]:
    """``choices[].logprobs`` of a completion whose first token stands at ``text_offset``, in characters."""
    columns: dict[str, list[Any]] = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    for drawn in logprobs:
        columns["tokens"].append(drawn.token)
        columns["token_logprobs"].append(finite(drawn.logprob))
        columns["top_logprobs"].append({other.token: finite(other.logprob) for other in drawn.alternatives})
        columns["text_offset"].append(text_offset)
        text_offset += len(drawn.token)
    return columns


def finite(logprob: float) -> float:
    """A log probability that JSON can write."""
    return max(_LOGPROB_FLOOR, logprob)


def _milliseconds(duration: Duration) -> float:
    return round(duration.seconds * 1e3 + duration.nanos / 1e6, 3)
