"""From what LM Studio streams to the events of the core, with its own habits straightened.

``model`` makes a reader for each request. Its habits: builds before 0.3.18 send no counts; builds since
2026 answer a prompt that is too long with nothing at all; names of tools come back in its own spelling.
Invariant: the last event is ``EngineFinished``, and comes once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec

from autotuned.core.generation import (
    EngineEvent,
    EngineFinished,
    FinishReason,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from autotuned.engines.answers import UNREADABLE
from autotuned.engines.chat_events import (
    ChatReader,
    EngineProblem,
    ProblemData,
    Stats,
    Timings,
    UnreadableStream,
    UsageJson,
    finish_reason_of,
    finished_of,
    problem_in,
    timings_of,
    usage_of,
)

# The type of an error that LM Studio did not send, though it should have.
SILENT_OVERFLOW = "silent_overflow"

_NO_LETTER = re.compile(r"[^a-z0-9]+")
_DONE = b"[DONE]"


class _TextChoice(msgspec.Struct, gc=False):
    text: str = ""
    finish_reason: str | None = None


class _TextChunk(msgspec.Struct, gc=False):
    choices: list[_TextChoice] = []
    usage: UsageJson | None = None
    stats: Stats | None = None
    error: Any = None


_decode_text = msgspec.json.Decoder(_TextChunk).decode


class TextReader:
    """Reads the chunks of a raw prompt; the counts come with the last one or not at all."""

    def __init__(self) -> None:
        self.finished = False
        self._finish_reason: FinishReason | None = None
        self._usage: UsageJson | None = None
        self._timings: Timings | None = None

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one chunk. Raises ``EngineProblem`` and ``UnreadableStream``."""
        if data == b"[DONE]":
            return self._finish()
        try:
            chunk = _decode_text(data)
        except UNREADABLE as error:
            raise UnreadableStream(str(error)) from error
        if chunk.error is not None:
            raise EngineProblem(problem_in(data, 0))
        events: list[EngineEvent] = []
        for choice in chunk.choices:
            if choice.text:
                events.append(TextDelta(0, choice.text))
            if choice.finish_reason:
                self._finish_reason = finish_reason_of(choice.finish_reason)
        self._usage = chunk.usage or self._usage
        self._timings = timings_of(chunk.stats) or self._timings
        return events

    def _finish(self) -> list[EngineEvent]:
        """The end, where the server told why it is one."""
        if self._finish_reason is None:
            return []
        self.finished = True
        return [finished_of(self._finish_reason, usage_of(self._usage), self._timings)]


class LmstudioReader:
    """Reads one answer. ``context_tokens`` is the loaded one, ``tool_names`` are as the client wrote them."""

    def __init__(
        self, inner: ChatReader | TextReader, *, context_tokens: int, tool_names: Iterable[str]
    ) -> None:
        self.finished = False
        self._inner = inner
        self._context_tokens = context_tokens
        self._tool_names = tuple(tool_names)
        self._is_empty = True

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one chunk. Raises ``EngineProblem`` and ``UnreadableStream``."""
        events = [self._straightened(event) for event in self._inner.feed(data)]
        if data == _DONE and not self._inner.finished:
            self._check_overflow(Usage(0, 0, 0))
        return events

    def _straightened(self, event: EngineEvent) -> EngineEvent:
        if isinstance(event, EngineFinished):
            self._check_overflow(event.usage)
            self.finished = True
            return event
        self._is_empty = False
        if isinstance(event, ToolCallDelta) and event.name:
            return replace(event, name=self._own_name(event.name))
        return event

    def _check_overflow(self, usage: Usage) -> None:
        """Nothing at all, and no prompt counted or one that cannot fit: that is how it refuses it."""
        if self._is_empty and (not usage.prompt_tokens or 0 < self._context_tokens <= usage.prompt_tokens):
            raise EngineProblem(ProblemData(type=SILENT_OVERFLOW, n_prompt_tokens=usage.prompt_tokens))

    def _own_name(self, name: str) -> str:
        """What the client calls the tool: LM Studio gives its models names in snake case."""
        if name in self._tool_names:
            return name
        alike = [own for own in self._tool_names if _letters(own) == _letters(name)]
        return alike[0] if len(alike) == 1 else name


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", text.lower())
