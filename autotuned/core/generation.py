"""What a generation answers: the events of an engine, and those of the service above it.

Engines yield ``EngineEvent``; ``services.inference`` turns them into ``GenerationEvent``.
Invariant: a stream that ends without an exception ends with exactly one ``EngineFinished``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from autotuned.core.model import LoadProgress
from autotuned.core.plan import Plan


@dataclass(frozen=True, slots=True)
class AlternativeLogprob:
    """A token that could have been drawn; ``logprob`` is a natural logarithm."""

    token: str
    token_bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A drawn token with the most likely tokens at its place."""

    token: str
    token_bytes: bytes
    logprob: float
    alternatives: tuple[AlternativeLogprob, ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the part at ``part_index``."""

    part_index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks."""

    part_index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a tool call; ``id`` and ``name`` are empty in all but the first fragment of a part."""

    part_index: int
    id: str
    name: str
    arguments_json_fragment: str


Delta = TextDelta | ReasoningDelta | ToolCallDelta


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """Prompt tokens in all, those that the KV cache held, and those done so far (cached included)."""

    prompt_tokens: int
    cached_tokens: int
    processed_tokens: int


class FinishReason(Enum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of a request, as the engine counted."""

    prompt_tokens: int
    cached_tokens: int
    reply_tokens: int


@dataclass(frozen=True, slots=True)
class EngineFinished:
    """The end, with the engine's own counts and times; a time is 0 where the engine tells none."""

    finish_reason: FinishReason
    usage: Usage
    prefill_seconds: float
    decode_seconds: float


EngineEvent = PrefillProgress | Delta | EngineFinished


@dataclass(frozen=True, slots=True)
class Queued:
    """The request waits: for ``position`` others, or for a load."""

    position: int
    load_progress: LoadProgress | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The engine took the prompt; the counts are its own, None where it tells them only at the end."""

    request_id: str
    model: str
    engine: str
    plan: Plan
    prompt_tokens: int | None
    cached_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of a request went, in seconds. Rates are tokens per second, 0 where unknown."""

    queue_seconds: float
    load_seconds: float
    time_to_first_token_seconds: float
    prefill_seconds: float
    decode_seconds: float
    total_seconds: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a generation."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Prewarmed:
    """What a prewarm did: the decision, the prompt's exact tokens and those of them that were cached before.

    Both are 0 where there was no prompt or the engine never counted it. ``overtaken``: a request came
    before the whole prompt was computed. Times in seconds; ``load_seconds`` is 0 when nothing was loaded.
    """

    plan: Plan
    prompt_tokens: int
    cached_tokens: int
    overtaken: bool
    load_seconds: float
    total_seconds: float


GenerationEvent = Queued | Started | Delta | Finished
