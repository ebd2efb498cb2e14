"""What went wrong, in OpenAI's shape: {"error": {"message", "type", "param", "code"}}.

``refuse`` makes the whole answer, ``error_object`` the part that a stream ends with. Invariant: the
daemon's sentence reaches the caller; the text of an unexpected exception never does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from autotune.errors import AutotuneError, QueueFull

from autotune_shim.exchange import HttpReply, RequestInvalid


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a reason is told. ``again`` False asks clients not to repeat a request that would fail again."""

    status: int
    type: str
    code: str
    again: bool = True


_KINDS: Mapping[str, _Kind] = {
    "FIELD_INVALID": _Kind(400, "invalid_request_error", "invalid_value"),
    "UNSUPPORTED": _Kind(400, "invalid_request_error", "unsupported"),
    "MODEL_NOT_FOUND": _Kind(404, "invalid_request_error", "model_not_found"),
    "MODEL_INVALID": _Kind(400, "invalid_request_error", "model_invalid"),
    "CONTEXT_TOO_LONG": _Kind(400, "invalid_request_error", "context_length_exceeded"),
    "MESSAGE_TOO_LARGE": _Kind(413, "invalid_request_error", "request_too_large"),
    "UNAUTHENTICATED": _Kind(401, "authentication_error", "invalid_api_key"),
    "KEY_REVOKED": _Kind(401, "authentication_error", "api_key_revoked"),
    "QUEUE_FULL": _Kind(429, "rate_limit_error", "queue_full"),
    "MODEL_LOAD_FAILED": _Kind(503, "server_error", "model_load_failed", again=False),
    # "Insufficient Storage": memory lacks for this request, while a smaller one would be served. 503 would
    # say that nobody is.
    "WOULD_SWAP": _Kind(507, "server_error", "would_swap", again=False),
    "STORAGE_FULL": _Kind(503, "server_error", "storage_full", again=False),
    "MODEL_TOO_LARGE": _Kind(507, "server_error", "model_too_large", again=False),
    "SOURCE_UNREACHABLE": _Kind(503, "server_error", "source_unreachable"),
    "SOURCE_DENIED": _Kind(403, "permission_error", "source_denied", again=False),
    "DOWNLOAD_CORRUPT": _Kind(503, "server_error", "download_corrupt"),
    "ENGINE_UNREACHABLE": _Kind(503, "server_error", "engine_unreachable"),
    "SHUTTING_DOWN": _Kind(503, "server_error", "shutting_down"),
    "DAEMON_UNREACHABLE": _Kind(503, "server_error", "daemon_unreachable"),
    "CANCELLED": _Kind(503, "server_error", "cancelled"),
    "ADDRESS_INVALID": _Kind(503, "server_error", "address_invalid", again=False),
    "VERSION_MISMATCH": _Kind(503, "server_error", "version_mismatch", again=False),
    "DEADLINE_EXCEEDED": _Kind(504, "server_error", "deadline_exceeded"),
}
_INTERNAL = _Kind(500, "server_error", "internal_error", again=False)

_PARAMS: Mapping[str, str] = {
    "messages": "messages",
    "new_messages": "messages",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "prompt": "prompt",
    "suffix": "suffix",
    "model": "model",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "logit_bias": "logit_bias",
    "max_reply_tokens": "max_tokens",
    "stop_sequences": "stop",
    "response_format": "response_format",
    "reasoning_effort": "reasoning_effort",
    "top_logprobs_count": "top_logprobs",
    "profile": "profile",
}
"""The request's fields on the wire, and what OpenAI calls them."""


def refuse(error: Exception) -> HttpReply:
    """The answer to a request that failed before anything was sent."""
    kind = _kind(error)
    status = error.status if isinstance(error, RequestInvalid) else kind.status
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, QueueFull):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_seconds))))
    if not kind.again:
        headers.append((b"x-should-retry", b"false"))
    return HttpReply(status, msgspec.json.encode({"error": error_object(error)}), tuple(headers))


def error_object(error: Exception) -> dict[str, Any]:
    """The inner object."""
    if isinstance(error, RequestInvalid):
        return _object(error.message, "invalid_request_error", error.field or None, error.code)
    kind = _kind(error)
    if isinstance(error, AutotuneError):
        return _object(error.message, kind.type, _param(error), kind.code)
    return _object("The server met an unexpected error; its log has the details.", kind.type, None, kind.code)


def _kind(error: Exception) -> _Kind:
    if isinstance(error, RequestInvalid):
        return _KINDS["FIELD_INVALID"]
    if isinstance(error, AutotuneError):
        return _KINDS.get(error.reason, _INTERNAL)
    return _INTERNAL


def _param(error: AutotuneError) -> str | None:
    """The caller's name for the field that the daemon names by its path on the wire."""
    if error.reason in {"MODEL_NOT_FOUND", "MODEL_INVALID", "WOULD_SWAP", "MODEL_TOO_LARGE"}:
        return "model"
    if error.reason == "CONTEXT_TOO_LONG":
        return "messages"
    for step in error.metadata.get("field", "").replace("[", ".").split("."):
        if step in _PARAMS:
            return _PARAMS[step]
    return None


def _object(message: str, kind: str, param: str | None, code: str) -> dict[str, Any]:
    return {"message": message, "type": kind, "param": param, "code": code}
