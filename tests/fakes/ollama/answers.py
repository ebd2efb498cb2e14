"""The fields that answers of chat and generate have in common: times, counts, log probabilities."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


class Stopwatch:
    """When a request came and when its runner was there, in nanoseconds."""

    def __init__(self) -> None:
        self._started = time.perf_counter_ns()
        self._loaded = self._started

    def loaded(self) -> None:
        self._loaded = time.perf_counter_ns()

    def times(self) -> Json:
        return {
            "total_duration": time.perf_counter_ns() - self._started,
            "load_duration": self._loaded - self._started,
        }


def now() -> str:
    return go_time(time.time_ns())


def go_time(nanoseconds: int) -> str:
    """A moment since 1970 as Go writes it: up to nine digits of a second, without zeros at the end."""
    seconds, rest = divmod(nanoseconds, 10**9)
    digits = f".{rest:09}".rstrip("0").rstrip(".")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + digits + "Z"


def counts(timings: Json, *, with_cached: bool) -> Json:
    """What the child counted. What is zero is left out, as there; a cached count of zero is not."""
    found = {
        "prompt_eval_count": timings["cache_n"] + timings["prompt_n"],
        "prompt_eval_duration": int(timings["prompt_ms"] * 1e6),
        "eval_count": timings["predicted_n"],
        "eval_duration": int(timings["predicted_ms"] * 1e6),
    }
    counted = {name: value for name, value in found.items() if value}
    return counted | {"prompt_eval_cached_count": timings["cache_n"]} if with_cached else counted


def logprobs(found: list[Json] | None, *, with_top: bool) -> Json:
    """The field, or nothing."""
    if not found:
        return {}
    return {
        "logprobs": [
            _logprob(each)
            | ({"top_logprobs": [_logprob(top) for top in _top(each)]} if with_top and _top(each) else {})
            for each in found
        ]
    }


def done_reason(limited: bool) -> str:
    return "length" if limited else "stop"


def _top(each: Json) -> list[Json]:
    return each.get("top_logprobs") or each.get("top_probs") or []


def _logprob(each: Json) -> Json:
    token = each["token"]
    found: Json = {"token": token, "logprob": each.get("logprob") or each.get("prob") or 0}
    return found | {"bytes": list(token.encode())} if token else found
