"""From the chunks that a server streams for a raw prompt to the events of the core.

``model`` feeds the data of server-sent events to a reader; chats are read by ``chat_events``.
Invariant: the last event is ``EngineFinished``, and comes once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from autotuned.core.generation import (
    AlternativeLogprob,
    EngineEvent,
    EngineFinished,
    FinishReason,
    TextDelta,
    TokenLogprob,
)
from autotuned.engines.answers import UNREADABLE
from autotuned.engines.chat_events import (
    EngineProblem,
    Progress,
    SentProblem,
    Timings,
    Token,
    UnreadableStream,
    UsageJson,
    finish_reason_of,
    finished_of,
    logprobs_of,
    problem_of,
    progress_of,
    usage_of,
)


class _Logprobs(msgspec.Struct, gc=False):
    """In OpenAI's old form, lists beside each other, or in that of chats."""

    content: list[Token] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: UsageJson | None = None
    timings: Timings | None = None
    prompt_progress: Progress | None = None
    error: SentProblem | str | None = None
    object: str | None = None
    message: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class CompletionReader:
    """Reads the chunks of a raw prompt's answer."""

    def __init__(self, top_logprobs_count: int | None) -> None:
        self.finished = False
        self._top_logprobs_count = top_logprobs_count
        self._finish_reason: FinishReason | None = None
        self._usage: UsageJson | None = None
        self._timings: Timings | None = None
        self._has_begun = False

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one chunk. Raises ``EngineProblem`` and ``UnreadableStream``."""
        if data == b"[DONE]":
            if self._has_begun and self._finish_reason is None:
                self._finish_reason = FinishReason.STOP
            return self.end()
        try:
            chunk = _decode(data)
        except UNREADABLE as error:
            raise UnreadableStream(str(error)) from error
        if chunk.error is not None or chunk.object == "error":
            raise EngineProblem(problem_of(chunk.error or SentProblem(message=chunk.message)))
        events: list[EngineEvent] = []
        if chunk.prompt_progress is not None:
            events.append(progress_of(chunk.prompt_progress))
        for choice in chunk.choices or ():
            self._read_choice(choice, events)
        self._timings = chunk.timings or self._timings
        if chunk.usage is not None:
            self._usage = chunk.usage
            if not chunk.choices:
                events += self.end()
        return events

    def end(self) -> list[EngineEvent]:
        """The last event, where the stream that ends here came to its end: it told why it finished."""
        if self.finished or self._finish_reason is None:
            return []
        self.finished = True
        end: EngineFinished = finished_of(
            self._finish_reason, usage_of(self._usage, self._timings), self._timings
        )
        return [end]

    def _read_choice(self, choice: _Choice, events: list[EngineEvent]) -> None:
        self._has_begun = True
        logprobs = self._logprobs(choice.logprobs) if choice.logprobs else ()
        if choice.text or logprobs:
            events.append(TextDelta(0, choice.text or "", logprobs))
        if choice.finish_reason:
            self._finish_reason = finish_reason_of(choice.finish_reason)

    def _logprobs(self, found: _Logprobs) -> tuple[TokenLogprob, ...]:
        count = self._top_logprobs_count
        if count is None:
            return ()
        if found.content is not None:
            return logprobs_of(found.content, count)
        tokens = found.tokens or ()
        values = found.token_logprobs or ()
        likely = found.top_logprobs or [None] * len(tokens)
        return tuple(
            TokenLogprob(
                token,
                token.encode(),
                value,
                tuple(
                    AlternativeLogprob(other, other.encode(), logprob)
                    for other, logprob in sorted((others or {}).items(), key=lambda each: -each[1])[:count]
                ),
            )
            for token, value, others in zip(tokens, values, likely, strict=False)
            if value is not None
        )
