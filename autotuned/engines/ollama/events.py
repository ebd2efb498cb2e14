"""From the lines that Ollama streams to the events of the core.

``requests`` feeds the lines to a reader and yields what it returns.
Invariants: a part index rises whenever the kind of content changes, and with each tool call; what the server
counted is passed on as it counted; the last event is ``EngineFinished``, and comes once.
"""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec

from autotuned.core.generation import (
    AlternativeLogprob,
    EngineEvent,
    EngineFinished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from autotuned.engines.answers import UNREADABLE, seconds
from autotuned.engines.chat_events import UnreadableStream, sound_usage

NANOSECONDS = 1e9

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class _Alternative(msgspec.Struct, gc=False):
    token: str
    logprob: float
    told_bytes: list[_Byte] | None = msgspec.field(default=None, name="bytes")

    def token_bytes(self) -> bytes:
        """The bytes as told, else those of the text: half a letter has no text of its own."""
        return self.token.encode() if self.told_bytes is None else bytes(self.told_bytes)


class _Token(_Alternative, gc=False):
    top_logprobs: list[_Alternative] = []


class _Function(msgspec.Struct, gc=False):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct, gc=False):
    content: str = ""
    thinking: str = ""
    tool_calls: list[_ToolCall] | None = None


class _Line(msgspec.Struct, gc=False):
    message: _Message | None = None
    response: str = ""
    thinking: str = ""
    done: bool = False
    done_reason: str = ""
    logprobs: list[_Token] | None = None
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_cached_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    error: str = ""


_decode = msgspec.json.Decoder(_Line).decode


class ServerProblem(Exception):
    """The server sent an error in mid-stream."""


class AnswerReader:
    """Reads the lines of one answer.

    ``calls_one_tool``: calls after the first are dropped, because Ollama cannot be told to make one alone.
    ``load_seconds`` is what the request waited for its model, once it has finished.
    """

    def __init__(self, top_logprobs_count: int | None, *, calls_one_tool: bool = False) -> None:
        self.finished = False
        self.load_seconds = 0.0
        self._top_count = top_logprobs_count or 0
        self._calls_one_tool = calls_one_tool
        self._part_index = -1
        self._part: type | None = None
        self._called = False

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one line. Raises ``ServerProblem`` and ``UnreadableStream``."""
        try:
            line = _decode(data)
        except UNREADABLE as error:
            raise UnreadableStream(str(error)) from error
        if line.error:
            raise ServerProblem(line.error)
        message = line.message or _Message(content=line.response, thinking=line.thinking)
        events: list[EngineEvent] = []
        logprobs = tuple(self._logprob(token) for token in line.logprobs or ())
        if message.thinking:
            events.append(ReasoningDelta(self._index(ReasoningDelta), message.thinking, logprobs))
            logprobs = ()
        if message.content or logprobs:
            events.append(TextDelta(self._index(TextDelta), message.content, logprobs))
        calls = message.tool_calls or []
        if self._calls_one_tool:
            calls = [] if self._called else calls[:1]
        events += [self._tool_call(call) for call in calls]
        if line.done:
            self.finished = True
            self.load_seconds = seconds(line.load_duration / NANOSECONDS)
            events.append(self._finish(line))
        return events

    def _index(self, part: type) -> int:
        if part is not self._part:
            self._part = part
            self._part_index += 1
        return self._part_index

    def _tool_call(self, call: _ToolCall) -> ToolCallDelta:
        """A call comes whole. Older versions give it no id."""
        self._called, self._part = True, None
        try:
            arguments = bytes(call.function.arguments).decode()
        except UnicodeDecodeError as error:
            raise UnreadableStream(str(error)) from error
        return ToolCallDelta(
            self._index(ToolCallDelta),
            call.id or f"call_{uuid.uuid4().hex[:8]}",
            call.function.name,
            "{}" if arguments == "null" else arguments,
        )

    def _logprob(self, token: _Token) -> TokenLogprob:
        return TokenLogprob(
            token.token,
            token.token_bytes(),
            token.logprob,
            tuple(
                AlternativeLogprob(other.token, other.token_bytes(), other.logprob)
                for other in token.top_logprobs[: self._top_count]
            ),
        )

    def _finish(self, line: _Line) -> EngineFinished:
        if line.done_reason == "length":
            reason = FinishReason.LENGTH
        else:
            reason = FinishReason.TOOL_CALLS if self._called else FinishReason.STOP
        return EngineFinished(
            reason,
            sound_usage(line.prompt_eval_count, line.prompt_eval_cached_count, line.eval_count),
            seconds(line.prompt_eval_duration / NANOSECONDS),
            seconds(line.eval_duration / NANOSECONDS),
        )
