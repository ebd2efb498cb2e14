"""From the chunks of OpenAI's chat stream, and of its relatives, to the events of the core.

The adapters feed the data of server-sent events to a reader and yield what it returns. Beside OpenAI's
fields it reads llama.cpp's: progress of the prefill, timings, counts in an error.
Invariants: a part index rises whenever the kind of content changes; what the engine counted is
passed on as it counted; the last event is ``EngineFinished``, and comes once.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Protocol

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
from autotuned.engines.answers import UNREADABLE, count, json_text, seconds
from autotuned.engines.tool_calls import ToolCalls

MILLISECONDS = 1000.0
# A code that is a number, such as a status of HTTP, has less digits.
LONGEST_CODE = 9

_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    # The server's filter ended the answer: what there is stands, and there is no more of it.
    "content_filter": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class ProblemData(msgspec.Struct, gc=False):
    """An error of the server, in a body of its own or in mid-stream."""

    message: str = ""
    type: str = ""
    code: int = 0
    code_name: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class SentProblem(msgspec.Struct, gc=False):
    """An error as servers send it: some name a code, some give a number, some neither."""

    message: Any = None
    type: Any = None
    code: Any = None
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class EngineProblem(Exception):
    """The server sent an error in mid-stream."""

    def __init__(self, problem: ProblemData) -> None:
        super().__init__(problem.message)
        self.problem = problem


class UnreadableStream(Exception):
    """The server sent something that is not what its format says."""


class Progress(msgspec.Struct, gc=False):
    """How far a prefill has come."""

    total: int
    cache: int
    processed: int


class Timings(msgspec.Struct, gc=False):
    """What the engine measured, in milliseconds, and tokens it counted."""

    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class Stats(msgspec.Struct, gc=False):
    """What LM Studio's own API measured, in seconds."""

    time_to_first_token: float | None = None
    generation_time: float | None = None


class _Alternative(msgspec.Struct, gc=False):
    token: str
    logprob: float
    bytes: list[_Byte] | None = None


class Token(_Alternative, gc=False):
    """One drawn token with the most likely ones."""

    top_logprobs: list[_Alternative] | None = None


class _Logprobs(msgspec.Struct, gc=False):
    content: list[Token] | None = None


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _ToolCall(msgspec.Struct, gc=False):
    function: _Function | None = None
    index: int | None = None
    id: str | None = None


class _ChatDelta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _ChatDelta | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class UsageJson(msgspec.Struct, gc=False):
    """Counts as they are written."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _ChatChunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    prompt_progress: Progress | None = None
    usage: UsageJson | None = None
    timings: Timings | None = None
    stats: Stats | None = None
    error: SentProblem | str | None = None
    object: str | None = None
    message: Any = None


class _ProblemBody(msgspec.Struct, gc=False):
    error: SentProblem | str | None = None
    message: Any = None
    detail: Any = None
    type: Any = None
    code: Any = None


_decode_chat = msgspec.json.Decoder(_ChatChunk).decode
_decode_problem = msgspec.json.Decoder(_ProblemBody).decode


class StreamReader(Protocol):
    """Turns the chunks of one stream into events."""

    finished: bool

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one chunk. Raises ``EngineProblem`` and ``UnreadableStream``."""


def problem_in(body: bytes, status: int) -> ProblemData:
    """The error in the body of an answer that is not a success."""
    try:
        sent = _decode_problem(body)
    except UNREADABLE:
        return ProblemData(message=body[:500].decode(errors="replace"), code=status)
    # Some servers put the fields of an error into the body itself.
    found = sent.error or SentProblem(message=sent.message or sent.detail, type=sent.type, code=sent.code)
    problem = problem_of(found)
    problem.message = problem.message or body[:500].decode(errors="replace")
    problem.code = problem.code or status
    return problem


def problem_of(sent: SentProblem | str) -> ProblemData:
    """A bare text is the message; a code that is a name counts as the type where there is no other."""
    if isinstance(sent, str):
        return ProblemData(message=sent)
    code = sent.code
    if isinstance(code, str) and code.isdecimal() and len(code) <= LONGEST_CODE:
        code = int(code)
    name = code if isinstance(code, str) else ""
    return ProblemData(
        message=_text(sent.message),
        type=_text(sent.type) or name,
        code=code if isinstance(code, int) else 0,
        code_name=name,
        n_prompt_tokens=sent.n_prompt_tokens,
        n_ctx=sent.n_ctx,
    )


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json_text(value)


class ChatReader:
    """Reads the chunks of a chat.

    A stream ends with its usage; with ``awaits_done``, where usage may come early, often or never, it ends
    with the mark "[DONE]", with the usage behind the finish reason, or by ``end``.
    """

    def __init__(self, top_logprobs_count: int | None, *, awaits_done: bool = False) -> None:
        self.finished = False
        self._awaits_done = awaits_done
        self._top_logprobs_count = top_logprobs_count or 0
        self._part_index = -1
        self._part: type | int | None = None
        self._calls = ToolCalls()
        self._finish_reason: FinishReason | None = None
        self._usage: UsageJson | None = None
        self._timings: Timings | None = None

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one chunk. Raises ``EngineProblem`` and ``UnreadableStream``."""
        if data == b"[DONE]":
            return self._done() if self._awaits_done else []
        try:
            chunk = _decode_chat(data)
        except UNREADABLE as error:
            raise UnreadableStream(str(error)) from error
        if chunk.error is not None:
            raise EngineProblem(problem_of(chunk.error))
        if chunk.object == "error":
            raise EngineProblem(ProblemData(message=_text(chunk.message)))
        events: list[EngineEvent] = []
        if chunk.prompt_progress is not None:
            events.append(progress_of(chunk.prompt_progress))
        for choice in chunk.choices or ():
            self._read_choice(choice, events)
        self._timings = chunk.timings or timings_of(chunk.stats) or self._timings
        if chunk.usage is not None:
            self._usage = chunk.usage
            if not self._awaits_done:
                events.append(self._finish())
            elif not chunk.choices:
                events += self.end()
        return events

    def end(self) -> list[EngineEvent]:
        """The last event, where the stream that ends here came to its end: it told why it finished."""
        return [] if self.finished or self._finish_reason is None else [self._finish()]

    def _done(self) -> list[EngineEvent]:
        """The last event where the server says that this is all; one that said nothing did not answer."""
        if self._finish_reason is None and self._part_index >= 0:
            self._finish_reason = FinishReason.STOP
        return self.end()

    def _finish(self) -> EngineFinished:
        self.finished = True
        reason = self._finish_reason or FinishReason.STOP
        if self._awaits_done and self._calls.count and reason is FinishReason.STOP:
            reason = FinishReason.TOOL_CALLS  # what some servers say where they were told which tool to call
        return finished_of(reason, usage_of(self._usage, self._timings), self._timings)

    def _read_choice(self, choice: _Choice, events: list[EngineEvent]) -> None:
        delta = choice.delta or _ChatDelta()
        logprobs = logprobs_of(choice.logprobs.content if choice.logprobs else None, self._top_logprobs_count)
        if thought := delta.reasoning_content or delta.reasoning:
            events.append(ReasoningDelta(self._index(ReasoningDelta), thought, logprobs))
            logprobs = ()
        if delta.content or logprobs:
            events.append(TextDelta(self._index(TextDelta), delta.content or "", logprobs))
        for call in delta.tool_calls or ():
            self._read_call(call, events)
        if choice.finish_reason:
            self._finish_reason = finish_reason_of(choice.finish_reason)

    def _read_call(self, call: _ToolCall, events: list[EngineEvent]) -> None:
        function = call.function or _Function()
        name, arguments = function.name or "", function.arguments or ""
        if isinstance(arguments, dict):
            arguments = json_text(arguments)
        number, is_new = self._calls.place(call.index, call.id or "", name)
        if is_new:
            # Every call has an id, so that its result can be told from others.
            call_id = call.id or f"call_{uuid.uuid4().hex[:24]}"
            events.append(ToolCallDelta(self._index(number), call_id, name, arguments))
        elif arguments:
            events.append(ToolCallDelta(self._index(number), "", "", arguments))

    def _index(self, part: type | int) -> int:
        """The index of the part that this belongs to; tool calls are told apart by their number."""
        if part != self._part:
            self._part = part
            self._part_index += 1
        return self._part_index


def progress_of(progress: Progress) -> PrefillProgress:
    """The event of a progress."""
    return PrefillProgress(progress.total, progress.cache, progress.processed)


def finish_reason_of(text: str) -> FinishReason:
    """The reason by one of its names. Raises ``UnreadableStream``."""
    try:
        return _FINISH_REASONS[text]
    except KeyError:
        raise UnreadableStream(f'unknown finish reason "{text}"') from None


def usage_of(usage: UsageJson | None, timings: Timings | None = None) -> Usage:
    """The counts; those that nobody told are 0."""
    if usage is None:
        if timings is None:
            return Usage(0, 0, 0)
        return sound_usage(timings.cache_n + timings.prompt_n, timings.cache_n, timings.predicted_n)
    details = usage.prompt_tokens_details
    return sound_usage(
        usage.prompt_tokens, details.cached_tokens if details else None, usage.completion_tokens
    )


def sound_usage(prompt: int | None, cached: int | None, reply: int | None) -> Usage:
    """The counts; no more is cached than was sent."""
    prompt_tokens = count(prompt)
    return Usage(prompt_tokens, min(count(cached), prompt_tokens), count(reply))


def finished_of(reason: FinishReason, usage: Usage, timings: Timings | None) -> EngineFinished:
    """The end, with times where the engine told any."""
    if timings is None:
        return EngineFinished(reason, usage, 0.0, 0.0)
    return EngineFinished(
        reason,
        usage,
        seconds(timings.prompt_ms / MILLISECONDS),
        seconds(timings.predicted_ms / MILLISECONDS),
    )


def timings_of(stats: Stats | None) -> Timings | None:
    """LM Studio's measurements as the others give theirs."""
    if stats is None:
        return None
    return Timings(
        prompt_ms=(stats.time_to_first_token or 0.0) * MILLISECONDS,
        predicted_ms=(stats.generation_time or 0.0) * MILLISECONDS,
    )


def logprobs_of(tokens: list[Token] | None, top_count: int) -> tuple[TokenLogprob, ...]:
    """Log probabilities, with at most so many alternatives each."""
    if not tokens:
        return ()
    return tuple(
        TokenLogprob(
            token.token,
            _bytes_of(token),
            token.logprob,
            tuple(
                AlternativeLogprob(other.token, _bytes_of(other), other.logprob)
                for other in (token.top_logprobs or ())[:top_count]
            ),
        )
        for token in tokens
    )


def _bytes_of(token: _Alternative) -> bytes:
    """Its bytes, or those of its text where the server tells none."""
    return token.token.encode() if token.bytes is None else bytes(token.bytes)
