"""From the chunks that a llama.cpp server streams for a raw prompt to the events of the core.

``model`` feeds the data of server-sent events to a reader and yields what it returns; chats are read by
``chat_events``. Invariant: the last event is ``EngineFinished``, and comes once.
"""

from __future__ import annotations

import msgspec

from autotuned.core.generation import EngineEvent, FinishReason, TextDelta, Usage
from autotuned.engines.answers import UNREADABLE
from autotuned.engines.chat_events import (
    EngineProblem,
    ProblemData,
    Progress,
    Timings,
    Token,
    UnreadableStream,
    finished_of,
    logprobs_of,
    progress_of,
)


class _PromptChunk(msgspec.Struct, gc=False):
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_evaluated: int = 0
    tokens_predicted: int = 0
    completion_probabilities: list[Token] | None = None
    prompt_progress: Progress | None = None
    timings: Timings | None = None
    error: ProblemData | None = None


_decode_prompt = msgspec.json.Decoder(_PromptChunk).decode


class PromptReader:
    """Reads the chunks of a raw prompt."""

    def __init__(self, top_logprobs_count: int | None) -> None:
        self.finished = False
        self._top_logprobs_count = top_logprobs_count or 0

    def feed(self, data: bytes) -> list[EngineEvent]:
        """The events of one chunk. Raises ``EngineProblem`` and ``UnreadableStream``."""
        try:
            chunk = _decode_prompt(data)
        except UNREADABLE as error:
            raise UnreadableStream(str(error)) from error
        if chunk.error is not None:
            raise EngineProblem(chunk.error)
        if chunk.prompt_progress is not None:
            return [progress_of(chunk.prompt_progress)]
        logprobs = logprobs_of(chunk.completion_probabilities, self._top_logprobs_count)
        events: list[EngineEvent] = (
            [TextDelta(0, chunk.content, logprobs)] if chunk.content or logprobs else []
        )
        if chunk.stop:
            self.finished = True
            cached_tokens = chunk.timings.cache_n if chunk.timings else 0
            usage = Usage(chunk.tokens_evaluated, cached_tokens, chunk.tokens_predicted)
            reason = FinishReason.LENGTH if chunk.stop_type == "limit" else FinishReason.STOP
            events.append(finished_of(reason, usage, chunk.timings))
        return events
