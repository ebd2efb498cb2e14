"""What the daemon and a worker say to each other, as values that both read and write as JSON.

``requests`` makes the calls, the worker's ``server`` reads them. Answers that stream are chunks of
OpenAI's chat dialect, which ``chat_events`` reads.
Invariant: everything that a request asks for is in its call; a worker never guesses.
"""

from __future__ import annotations

from typing import Any

import msgspec

GENERATE_TARGET = "/generate"
COUNT_TARGET = "/count"
SAVE_TARGET = "/save"
RESTORE_TARGET = "/restore"
STATUS_TARGET = "/status"

# Types of errors. The "type" of a problem is one of them, a colon, and the field that is to be mended.
CONTEXT_TOO_LONG = "context_too_long"
FIELD_INVALID = "field_invalid"
UNSUPPORTED = "unsupported"
UNWRITTEN = "unwritten"
FAILED = "failed"


class WorkerSettings(msgspec.Struct, kw_only=True):
    """What a worker is told to be. ``cache_bits`` 0 keeps keys and values as the model computes them."""

    model: str
    alias: str
    socket: str
    prefix_folder: str
    context_tokens: int
    batch_tokens: int
    cache_bits: int
    prompt_cache_bytes: int


class LoadReport(msgspec.Struct, kw_only=True):
    """What a worker has in memory once it is ready, in bytes.

    ``kv_cache_bytes`` are what the whole context will take; it grows as it is used. ``compute_bytes`` are
    those of one batch, from a smaller one. ``resident_bytes`` is its process, weights included.
    """

    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    active_bytes: int
    resident_bytes: int
    device: str


class SamplingData(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The fields of ``core.chat.Sampling``."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: list[tuple[int, float]] = []


class PromptData(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A conversation in OpenAI's JSON, or ``text`` that meets no template.

    ``must_call`` says that a tool has to be called; ``thinking`` and ``effort`` are for the template.
    """

    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    text: str | None = None
    must_call: bool = False
    thinking: bool | None = None
    effort: str = ""


class GenerateCall(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One generation, or with ``prefill_only`` none of it but the state of its prompt.

    ``max_tokens`` None: until the model ends or the context is full. ``form`` is "", "json_object" or
    "json_schema". ``top_logprobs`` None: none at all.
    """

    prompt: PromptData
    conversation: str = ""
    prefill_only: bool = False
    sampling: SamplingData = msgspec.field(default_factory=SamplingData)
    max_tokens: int | None = None
    stop: list[str] = []
    form: str = ""
    schema: str = ""
    top_logprobs: int | None = None


class FileCall(msgspec.Struct, kw_only=True):
    """The state of a conversation, to be written to or read from a file of the prefix folder."""

    conversation: str
    file_name: str


class Written(msgspec.Struct, kw_only=True):
    """Tokens and bytes of a state that was written, tokens of one that was read; 0 where there is none."""

    tokens_count: int
    bytes_count: int = 0


class Counted(msgspec.Struct, kw_only=True):
    """Tokens of a prompt."""

    tokens_count: int


class WorkerStatus(msgspec.Struct, kw_only=True):
    """What a worker does and holds now: requests that run or wait, and MLX's memory in bytes."""

    active_requests_count: int
    active_bytes: int
    peak_bytes: int
    cached_bytes: int
