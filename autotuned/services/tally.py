"""The counts and times of one request, over all parts of its reply.

``services.generation`` owns one for each request. Invariant: what a client is told and what is recorded
come from here and agree.
"""

from __future__ import annotations

from dataclasses import replace

from autotuned.core.generation import EngineFinished, PrefillProgress, Timings, Usage
from autotuned.core.ports import Clock

_NOTHING = Usage(0, 0, 0)


class Tally:
    """``started_at`` is seconds since the epoch. Waits are told to it as they end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started_at = clock.now()
        self._received = clock.monotonic()
        self._turn_seconds: float | None = None  # until a turn is granted
        self._busy_seconds = 0.0
        self._load_seconds = 0.0
        self._first_token_seconds = 0.0
        self._prompt = PrefillProgress(0, 0, 0)
        self._counted_seconds = 0.0
        self._usage: Usage | None = None
        self._evaluated_tokens = 0
        self._prefill_seconds = 0.0
        self._decode_seconds = 0.0

    @property
    def usage(self) -> Usage:
        """Tokens of the prompt as they were first counted, and of the whole reply."""
        return self._usage or Usage(self._prompt.prompt_tokens, self._prompt.cached_tokens, 0)

    @property
    def seen_prefill_seconds(self) -> float:
        """From the count of the prompt to the first piece: what an engine that was stopped cannot tell."""
        return max(0.0, self._first_token_seconds - self._counted_seconds)

    def got_turn(self) -> None:
        """The queue is behind it."""
        self._turn_seconds = self._elapsed()

    def waited(self, load_seconds: float, busy_seconds: float) -> None:
        """It waited for a load, and for others to be done with the model."""
        self._load_seconds += load_seconds
        self._busy_seconds += busy_seconds

    def counted(self, progress: PrefillProgress) -> None:
        """The engine counted the prompt."""
        self._prompt = progress
        self._counted_seconds = self._elapsed()

    def spoke(self) -> None:
        """A piece of the answer came."""
        if not self._first_token_seconds:
            self._first_token_seconds = self._elapsed()

    def ended_part(self, part: EngineFinished) -> None:
        """The engine ended; a part that goes on from an earlier one adds what is new."""
        evaluated_tokens = part.usage.prompt_tokens - part.usage.cached_tokens
        if self._usage is None:
            self._usage = part.usage
        else:
            reply_tokens = self._usage.reply_tokens + part.usage.reply_tokens
            self._usage = replace(self._usage, reply_tokens=reply_tokens)
        self._evaluated_tokens += evaluated_tokens
        self._prefill_seconds += part.prefill_seconds
        self._decode_seconds += part.decode_seconds

    def timings(self) -> Timings:
        """The times until now."""
        total_seconds = self._elapsed()
        waited_seconds = total_seconds if self._turn_seconds is None else self._turn_seconds
        reply_tokens = (self._usage or _NOTHING).reply_tokens
        return Timings(
            queue_seconds=waited_seconds + self._busy_seconds,
            load_seconds=self._load_seconds,
            time_to_first_token_seconds=self._first_token_seconds,
            prefill_seconds=self._prefill_seconds,
            decode_seconds=self._decode_seconds,
            total_seconds=total_seconds,
            prefill_tokens_per_second=_rate(self._evaluated_tokens, self._prefill_seconds),
            decode_tokens_per_second=_rate(reply_tokens - 1, self._decode_seconds),
        )

    def _elapsed(self) -> float:
        return self._clock.monotonic() - self._received


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if tokens > 0 and seconds > 0 else 0.0
