"""From the chunks that a llama.cpp server streams to the events of the core.

``model`` feeds the data of server-sent events to a reader, one for each of the server's two stream
formats, and yields what it returns.
Invariants: a part index rises whenever the kind of content changes; what the engine counted is
passed on as it counted; the last event is ``EngineFinished``, and comes once.
"""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec

from autotuned.core.generation import (
    AlternativeLogprob,
    EngineEvent,
    EngineFinished,
    FinishReason,
    PrefillProgress,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

MILLISECONDS = 1000.0

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class ProblemData(msgspec.Struct, gc=False):
    """An error of the server, in a body of its own or in mid-stream."""

    message: str = ""
    type: str = ""
    code: int = 0
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class EngineProblem(Exception):
    """The server sent an error in mid-stream."""

    def __init__(self, problem: ProblemData) -> None:
        super().__init__(problem.message)
        self.problem = problem


class UnreadableStream(Exception):
    """The server sent something that is not what its format says."""


class _Progress(msgspec.Struct, gc=False):
    total: int
    cache: int
    processed: int


class _Timings(msgspec.Struct, gc=False):
    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class _Alternative(msgspec.Struct, gc=False):
    token: str
    bytes: list[_Byte]
    logprob: float


class _Token(_Alternative, gc=False):
    top_logprobs: list[_Alternative] = []


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Token] | None = None


class _Function(msgspec.Struct, gc=False):
    name: str = ""
    arguments: str = ""


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function
    index: int = 0
    id: str = ""


class _ChatDelta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _ChatDelta
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int = 0


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _PromptDetails = msgspec.field(default_factory=_PromptDetails)


class _ChatChunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    prompt_progress: _Progress | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: ProblemData | None = None


class _PromptChunk(msgspec.Struct, gc=False):
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_evaluated: int = 0
    tokens_predicted: int = 0
    completion_probabilities: list[_Token] | None = None
    prompt_progress: _Progress | None = None
    timings: _Timings | None = None
    error: ProblemData | None = None


class _ProblemBody(msgspec.Struct, gc=False):
    error: ProblemData


_decode_chat = msgspec.json.Decoder(_ChatChunk).decode
_decode_prompt = msgspec.json.Decoder(_PromptChunk).decode
_decode_problem = msgspec.json.Decoder(_ProblemBody).decode


class StreamReader(Protocol):
    """Turns the chunks of one stream into events."""

    finished: bool

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one chunk. Raises ``EngineProblem`` and ``UnreadableStream``."""


def problem_in(body: bytes, status: int) -> ProblemData:
    """The error in the body of an answer that is not a success."""
    try:
        problem = _decode_problem(body).error
    except msgspec.DecodeError:
        problem = ProblemData(message=body[:500].decode(errors="replace"))
    problem.code = problem.code or status
    return problem


class ChatReader:
    """Reads the chunks of a chat."""

    def __init__(self, top_logprobs_count: int | None) -> None:
        self.finished = False
        self._top_logprobs_count = top_logprobs_count or 0
        self._part_index = -1
        self._part: type | int | None = None
        self._finish_reason = FinishReason.STOP

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one chunk. Raises ``EngineProblem`` and ``UnreadableStream``."""
        if data == b"[DONE]":
            return []
        try:
            chunk = _decode_chat(data)
        except msgspec.DecodeError as error:
            raise UnreadableStream(str(error)) from error
        if chunk.error is not None:
            raise EngineProblem(chunk.error)
        events: list[EngineEvent] = []
        if chunk.prompt_progress is not None:
            events.append(_progress(chunk.prompt_progress))
        for choice in chunk.choices:
            self._read_choice(choice, events)
        if chunk.usage is not None:
            usage = chunk.usage
            self.finished = True
            events.append(
                _finished(
                    self._finish_reason,
                    Usage(
                        usage.prompt_tokens,
                        usage.prompt_tokens_details.cached_tokens,
                        usage.completion_tokens,
                    ),
                    chunk.timings,
                )
            )
        return events

    def _read_choice(self, choice: _Choice, events: list[EngineEvent]) -> None:
        delta = choice.delta
        logprobs = _logprobs(choice.logprobs.content if choice.logprobs else None, self._top_logprobs_count)
        if delta.reasoning_content:
            events.append(ReasoningDelta(self._index(ReasoningDelta), delta.reasoning_content, logprobs))
            logprobs = ()
        if delta.content or logprobs:
            events.append(TextDelta(self._index(TextDelta), delta.content or "", logprobs))
        events.extend(
            ToolCallDelta(self._index(call.index), call.id, call.function.name, call.function.arguments)
            for call in delta.tool_calls or ()
        )
        if choice.finish_reason is not None:
            self._finish_reason = _finish_reason(choice.finish_reason)

    def _index(self, part: type | int) -> int:
        """The index of the part that this belongs to; tool calls are told apart by their number."""
        if part != self._part:
            self._part = part
            self._part_index += 1
        return self._part_index


class PromptReader:
    """Reads the chunks of a raw prompt."""

    def __init__(self, top_logprobs_count: int | None) -> None:
        self.finished = False
        self._top_logprobs_count = top_logprobs_count or 0

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one chunk. Raises ``EngineProblem`` and ``UnreadableStream``."""
        try:
            chunk = _decode_prompt(data)
        except msgspec.DecodeError as error:
            raise UnreadableStream(str(error)) from error
        if chunk.error is not None:
            raise EngineProblem(chunk.error)
        if chunk.prompt_progress is not None:
            return [_progress(chunk.prompt_progress)]
        logprobs = _logprobs(chunk.completion_probabilities, self._top_logprobs_count)
        events: list[EngineEvent] = (
            [TextDelta(0, chunk.content, logprobs)] if chunk.content or logprobs else []
        )
        if chunk.stop:
            self.finished = True
            cached_tokens = chunk.timings.cache_n if chunk.timings else 0
            usage = Usage(chunk.tokens_evaluated, cached_tokens, chunk.tokens_predicted)
            reason = FinishReason.LENGTH if chunk.stop_type == "limit" else FinishReason.STOP
            events.append(_finished(reason, usage, chunk.timings))
        return events


def _progress(progress: _Progress) -> PrefillProgress:
    return PrefillProgress(progress.total, progress.cache, progress.processed)


def _finish_reason(text: str) -> FinishReason:
    try:
        return FinishReason(text)
    except ValueError as error:
        raise UnreadableStream(f'unknown finish reason "{text}"') from error


def _finished(reason: FinishReason, usage: Usage, timings: _Timings | None) -> EngineFinished:
    if timings is None:
        return EngineFinished(reason, usage, 0.0, 0.0)
    return EngineFinished(
        reason, usage, timings.prompt_ms / MILLISECONDS, timings.predicted_ms / MILLISECONDS
    )


def _logprobs(tokens: list[_Token] | None, top_count: int) -> tuple[TokenLogprob, ...]:
    if not tokens:
        return ()
    return tuple(
        TokenLogprob(
            token.token,
            bytes(token.bytes),
            token.logprob,
            tuple(
                AlternativeLogprob(other.token, bytes(other.bytes), other.logprob)
                for other in token.top_logprobs[:top_count]
            ),
        )
        for token in tokens
    )
