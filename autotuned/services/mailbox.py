"""The buffer between an engine, which must never wait, and a reader, which may be slow.

One per generation. Invariant: order is kept; nothing is lost; what the reader has not taken yet is
merged, so that a slow reader costs joined strings and not a growing number of events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import groupby

from autotuned.core.generation import (
    GenerationEvent,
    Queued,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)


class Mailbox:
    """An unbounded, merging, single-reader queue of events that ends."""

    def __init__(self) -> None:
        self._pending: list[GenerationEvent] = []
        self._ended = False
        self._error: BaseException | None = None
        self._wake: asyncio.Future[None] | None = None

    def put(self, event: GenerationEvent) -> None:
        """Adds an event; never waits."""
        self._pending.append(event)
        self._notify()

    def end(self, error: BaseException | None = None) -> None:
        """Says that nothing more comes; the reader gets ``error`` after what is pending."""
        self._ended = True
        self._error = error
        self._notify()

    async def events(self) -> AsyncIterator[GenerationEvent]:
        """Yields what comes, merged as far as the reader was behind; raises the error of ``end``."""
        while True:
            while self._pending:
                pending, self._pending = self._pending, []
                for event in merge(pending) if len(pending) > 1 else pending:
                    yield event
            if self._ended:
                if self._error is not None:
                    raise self._error
                return
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def merge(events: list[GenerationEvent]) -> list[GenerationEvent]:
    """Joins neighbouring pieces of one part; of several queue positions in a row the last counts."""
    merged: list[GenerationEvent] = []
    for _, group in groupby(events, key=_kind):
        run = list(group)
        merged.append(_joined(run) if len(run) > 1 else run[0])
    return merged


def _kind(event: GenerationEvent) -> tuple[type[GenerationEvent], int]:
    match event:
        case TextDelta() | ReasoningDelta() | ToolCallDelta():
            return type(event), event.part_index
        case _:
            return type(event), 0


def _joined(run: list[GenerationEvent]) -> GenerationEvent:
    first = run[0]
    match first:
        case TextDelta():
            texts = [event for event in run if isinstance(event, TextDelta)]
            logprobs = tuple(logprob for event in texts for logprob in event.logprobs)
            return TextDelta(first.part_index, "".join(event.text for event in texts), logprobs)
        case ReasoningDelta():
            thoughts = [event for event in run if isinstance(event, ReasoningDelta)]
            logprobs = tuple(logprob for event in thoughts for logprob in event.logprobs)
            return ReasoningDelta(first.part_index, "".join(event.text for event in thoughts), logprobs)
        case ToolCallDelta():
            fragments = [event for event in run if isinstance(event, ToolCallDelta)]
            arguments = "".join(event.arguments_json_fragment for event in fragments)
            return ToolCallDelta(first.part_index, first.id, first.name, arguments)
        case Queued():
            return run[-1]
        case _:
            raise ValueError(f"two {type(first).__name__} in a row")
