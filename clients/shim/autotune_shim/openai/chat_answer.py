"""The daemon's events as a chat completion: whole, or as the chunks of an event stream.

The stream is the hot path. Everything of a chunk but its text is made once, and only the text is
escaped for each token.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
from autotune.v1 import inference_service_pb2 as wire

from autotune_shim.exchange import HttpReply, StreamAnswer, WholeAnswer
from autotune_shim.openai.errors import error_object
from autotune_shim.openai.figures import (
    FINISH_REASONS,
    autotune_object,
    chat_logprobs,
    fingerprint,
    usage_object,
)
from autotune_shim.sse import MEDIA_TYPE, data_event, waiting_comment

_encode = msgspec.json.encode


def new_id(prefix: str, started: wire.Started) -> str:
    """The answer's id: the daemon's request id, so that an answer is found in log and records."""
    return f"{prefix}-{started.request_id or secrets.token_hex(12)}"


class ChatStream(StreamAnswer):
    """Chunks of a chat completion. The first one carries the role, the last one the numbers."""

    media_type = MEDIA_TYPE

    def __init__(self, *, includes_usage: bool, profile: wire.Profile) -> None:
        self._includes_usage = includes_usage
        self._profile = profile
        self._started = wire.Started()
        self._created = int(time.time())
        self._head: dict[str, Any] = {}
        self._opening = b""
        self._text_frame = self._reasoning_frame = (b"", b"")
        self._calls: dict[int, int] = {}

    def event(self, response: wire.GenerateResponse) -> bytes:
        """The chunks of one event. Started sends nothing yet, so that an early failure keeps its status."""
        if response.HasField("delta"):
            chunk = self._delta(response.delta)
            if self._opening and chunk:
                chunk, self._opening = self._opening + chunk, b""
            return chunk
        if response.HasField("started"):
            self._start(response.started)
        elif response.HasField("finished"):
            self.complete = True
            return self._opening + self._finish(response.finished)
        return b""

    def waiting(self, position: int) -> bytes:
        """A comment."""
        return waiting_comment(position)

    def failure(self, error: Exception) -> bytes:
        """The error as the last event. No [DONE] follows: the answer is not done."""
        return data_event({"error": error_object(error)})

    def _start(self, started: wire.Started) -> None:
        self._started.CopyFrom(started)
        self._head = {
            "id": new_id("chatcmpl", started),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": started.model,
            "system_fingerprint": fingerprint(started),
        }
        self._text_frame = self._frame("content")
        self._reasoning_frame = self._frame("reasoning_content")
        self._opening = self._chunk({"role": "assistant", "content": ""})

    def _delta(self, delta: wire.Delta) -> bytes:
        kind = delta.WhichOneof("content")
        if kind == "text":
            if delta.logprobs:
                return self._chunk(
                    {"content": delta.text}, logprobs={"content": chat_logprobs(delta.logprobs)}
                )
            prefix, suffix = self._text_frame
            return prefix + _encode(delta.text) + suffix if delta.text else b""
        if kind == "reasoning":
            prefix, suffix = self._reasoning_frame
            return prefix + _encode(delta.reasoning) + suffix
        if kind == "tool_call":
            return self._tool_call(delta.part_index, delta.tool_call)
        return b""

    def _frame(self, name: str) -> tuple[bytes, bytes]:
        """What stands before and after the text of a chunk whose delta has the one field ``name``."""
        field = _encode(name) + b":"
        prefix, _, suffix = self._chunk({name: ""}).partition(field + b'""')
        return prefix + field, suffix

    def _tool_call(self, part_index: int, fragment: wire.ToolCallFragment) -> bytes:
        index = self._calls.get(part_index)
        call: dict[str, Any] = {"function": {"arguments": fragment.arguments_json_fragment}}
        if index is None:
            index = self._calls[part_index] = len(self._calls)
            call = {
                "id": fragment.id,
                "type": "function",
                "function": {"name": fragment.name, **call["function"]},
            }
        return self._chunk({"tool_calls": [{"index": index, **call}]})

    def _finish(self, finished: wire.Finished) -> bytes:
        numbers = {"autotune": autotune_object(self._started, finished.timings, self._profile)}
        reason = FINISH_REASONS[finished.finish_reason]
        if not self._includes_usage:
            return self._chunk({}, finish_reason=reason, **numbers) + b"data: [DONE]\n\n"
        usage = {**self._head, "choices": [], "usage": usage_object(self._started, finished.usage), **numbers}
        return self._chunk({}, finish_reason=reason) + data_event(usage) + b"data: [DONE]\n\n"

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        logprobs: object = None,
        finish_reason: str | None = None,
        **extra: object,
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._includes_usage else {}
        return data_event({**self._head, "choices": [choice], **usage, **extra})


@dataclass(slots=True)
class _Call:
    """A tool call in the making."""

    id: str
    name: str
    fragments: list[str] = field(default_factory=list)


class ChatWhole(WholeAnswer):
    """A chat completion."""

    def __init__(self, *, profile: wire.Profile) -> None:
        self._profile = profile
        self._started = wire.Started()
        self._finished = wire.Finished()
        self._created = int(time.time())
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._calls: dict[int, _Call] = {}

    def event(self, response: wire.GenerateResponse) -> None:
        """Takes the next event."""
        if response.HasField("delta"):
            self._delta(response.delta)
        elif response.HasField("started"):
            self._started.CopyFrom(response.started)
        elif response.HasField("finished"):
            self._finished.CopyFrom(response.finished)
            self.complete = True

    def reply(self) -> HttpReply:
        """The completion."""
        started, finished = self._started, self._finished
        choice = {
            "index": 0,
            "message": self._message(),
            "logprobs": {"content": self._logprobs} if self._logprobs else None,
            "finish_reason": FINISH_REASONS[finished.finish_reason],
        }
        body = {
            "id": new_id("chatcmpl", started),
            "object": "chat.completion",
            "created": self._created,
            "model": started.model,
            "system_fingerprint": fingerprint(started),
            "choices": [choice],
            "usage": usage_object(started, finished.usage),
            "autotune": autotune_object(started, finished.timings, self._profile),
        }
        return HttpReply(200, _encode(body))

    def _delta(self, delta: wire.Delta) -> None:
        kind = delta.WhichOneof("content")
        if kind == "tool_call":
            fragment = delta.tool_call
            call = self._calls.setdefault(delta.part_index, _Call(fragment.id, fragment.name))
            call.fragments.append(fragment.arguments_json_fragment)
        elif kind == "reasoning":
            self._reasoning.append(delta.reasoning)
        else:
            self._text.append(delta.text)
            self._logprobs += chat_logprobs(delta.logprobs)

    def _message(self) -> dict[str, Any]:
        text = "".join(self._text)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._calls:
            message["content"] = text or None
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": "".join(call.fragments)},
                }
                for call in self._calls.values()
            ]
        return message
