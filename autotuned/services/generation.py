"""The life of one generation, from its turn to its last token.

``services.inference`` makes one for each request and runs it as a task of its own, so that a slow
reader holds back neither the engine nor the next request. Invariant: the turn is given back when
the engine ends, whatever the reader does; the mailbox is ended exactly once.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing
from dataclasses import replace

from autotuned.core.chat import GenerationRequest, ProfileName
from autotuned.core.errors import AutotuneError, ContextTooLong, EngineUnreachable, ShuttingDown
from autotuned.core.generation import (
    EngineFinished,
    Finished,
    FinishReason,
    PrefillProgress,
    Queued,
    Started,
    Timings,
    Usage,
)
from autotuned.core.model import LoadProgress
from autotuned.core.plan import Need, Plan, PlanAction
from autotuned.core.ports import Clock
from autotuned.core.record import RequestRecord
from autotuned.policy import sizing
from autotuned.policy.profiles import PROFILES, reply_room, with_defaults
from autotuned.policy.prompt import messages_count, prompt_bytes
from autotuned.services.lease import Lease
from autotuned.services.mailbox import Mailbox
from autotuned.services.model_actor import ModelActor
from autotuned.services.turns import Turns

_NOTHING = EngineFinished(FinishReason.STOP, Usage(0, 0, 0), 0.0, 0.0)


class _LeaseAgainError(Exception):
    """The lease did not serve: the context is too small by the engine's count, or the worker was gone."""


class Generation:
    """One request. ``tokens_per_byte`` is shared by all of them: what was learned of each model."""

    def __init__(
        self,
        *,
        request: GenerationRequest,
        actor: ModelActor,
        turns: Turns,
        tokens_per_byte: dict[str, float],
        profile: ProfileName,
        mailbox: Mailbox,
        clock: Clock,
    ) -> None:
        chosen = PROFILES[profile]
        self.request_id = uuid.uuid4().hex
        self._request = replace(request, sampling=with_defaults(request.sampling, chosen))
        self._actor = actor
        self._turns = turns
        self._tokens_per_byte = tokens_per_byte
        self._mailbox = mailbox
        self._clock = clock
        self._started_at = clock.now()
        self._received = clock.monotonic()
        self._prompt_bytes = prompt_bytes(request.input)
        self._need = Need(
            prompt_tokens=self._estimate(),
            prompt_is_exact=False,
            reply_tokens=reply_room(request.max_reply_tokens, chosen),
            context_tokens=request.context_tokens,
        )
        self._queue_seconds: float | None = None  # until a turn is granted
        self._load_seconds = 0.0
        self._first_token_seconds = 0.0
        self._plan: Plan | None = None
        self._prefill = PrefillProgress(0, 0, 0)
        self._finished: Finished | None = None
        self._error_reason = ""
        self._cancelled = False
        self._found_gone = False

    async def run(self) -> None:
        """Carries the request out; every outcome ends the mailbox."""
        try:
            async with self._turns.turn(self._tell_position):
                self._queue_seconds = self._clock.monotonic() - self._received
                await self._answer()
        except AutotuneError as error:
            self._error_reason = error.reason
            self._mailbox.end(error)
        except asyncio.CancelledError:
            self._cancelled = True
            self._mailbox.end(ShuttingDown())  # a reader that is still there was not the one who cancelled
            raise
        except Exception as error:
            self._error_reason = AutotuneError.reason
            self._mailbox.end(error)
            raise
        else:
            self._mailbox.end()

    def record(self) -> RequestRecord:
        """What is remembered of the request once it has ended."""
        finished = self._finished
        timings = finished.timings if finished else self._timings(_NOTHING)
        outcome = finished.finish_reason.value if finished else ""
        return RequestRecord(
            request_id=self.request_id,
            model=self._actor.entry.id,
            engine=self._actor.entry.engine,
            started_at=self._started_at,
            finish_reason="cancelled" if self._cancelled else outcome,
            error_reason=self._error_reason,
            prompt_tokens=finished.usage.prompt_tokens if finished else self._prefill.prompt_tokens,
            cached_tokens=finished.usage.cached_tokens if finished else self._prefill.cached_tokens,
            reply_tokens=finished.usage.reply_tokens if finished else 0,
            queue_seconds=timings.queue_seconds,
            load_seconds=timings.load_seconds,
            time_to_first_token_seconds=timings.time_to_first_token_seconds,
            prefill_seconds=timings.prefill_seconds,
            decode_seconds=timings.decode_seconds,
            total_seconds=timings.total_seconds,
            decode_tokens_per_second=timings.decode_tokens_per_second,
            shape=self._plan.shape if self._plan else None,
        )

    def _estimate(self) -> int:
        known = self._tokens_per_byte.get(self._actor.entry.id, sizing.DEFAULT_TOKENS_PER_BYTE)
        return sizing.estimate_prompt_tokens(self._prompt_bytes, messages_count(self._request.input), known)

    async def _answer(self) -> None:
        """Leases the model and runs; one exact growth and one worker found dead cost another lease each."""
        while True:
            try:
                return await self._lease_and_run()
            except _LeaseAgainError:
                continue

    async def _lease_and_run(self) -> None:
        asked_at = self._clock.monotonic()
        try:
            lease = await self._actor.acquire(self._need, self._tell_load)
        except BaseException:
            self._load_seconds += self._clock.monotonic() - asked_at
            raise
        self._load_seconds += lease.waited_seconds
        with lease:
            self._plan = lease.plan
            try:
                await self._stream(lease)
            except ContextTooLong as error:
                if self._need.prompt_is_exact:
                    raise
                self._need = replace(self._need, prompt_tokens=error.prompt_tokens, prompt_is_exact=True)
                raise _LeaseAgainError from error
            except EngineUnreachable as error:
                if error.served or self._found_gone:
                    raise
                self._found_gone = True
                raise _LeaseAgainError from error

    async def _stream(self, lease: Lease) -> None:
        """Forwards what the engine yields until it ends."""
        put = self._mailbox.put
        started = False
        async with aclosing(lease.loaded.generate(self._request)) as events:
            async for event in events:
                if isinstance(event, PrefillProgress):
                    if not started:
                        self._start(event, lease)
                        started = True
                elif isinstance(event, EngineFinished):
                    self._finished = Finished(event.finish_reason, event.usage, self._timings(event))
                    put(self._finished)
                else:
                    if not self._first_token_seconds:
                        self._first_token_seconds = self._clock.monotonic() - self._received
                    put(event)

    def _start(self, progress: PrefillProgress, lease: Lease) -> None:
        """The engine's exact count is known: learn from it, and grow if the reply would not fit."""
        self._prefill = progress
        model = self._actor.entry.id
        self._tokens_per_byte[model] = sizing.learn_tokens_per_byte(
            self._tokens_per_byte.get(model),
            self._prompt_bytes,
            progress.prompt_tokens,
            messages_count(self._request.input),
        )
        if not self._need.prompt_is_exact:
            self._need = replace(self._need, prompt_tokens=progress.prompt_tokens, prompt_is_exact=True)
            exact = self._actor.plan(self._need, lease.loaded.shape)
            if exact.action is not PlanAction.REUSE:
                raise _LeaseAgainError
            if lease.plan.action is PlanAction.REUSE:
                self._plan = exact
        self._mailbox.put(
            Started(
                self.request_id,
                model,
                self._actor.entry.engine,
                self._plan or lease.plan,
                progress.prompt_tokens,
                progress.cached_tokens,
            )
        )

    def _timings(self, engine: EngineFinished) -> Timings:
        evaluated_tokens = engine.usage.prompt_tokens - engine.usage.cached_tokens
        total_seconds = self._clock.monotonic() - self._received
        return Timings(
            queue_seconds=total_seconds if self._queue_seconds is None else self._queue_seconds,
            load_seconds=self._load_seconds,
            time_to_first_token_seconds=self._first_token_seconds,
            prefill_seconds=engine.prefill_seconds,
            decode_seconds=engine.decode_seconds,
            total_seconds=total_seconds,
            prefill_tokens_per_second=_rate(evaluated_tokens, engine.prefill_seconds),
            decode_tokens_per_second=_rate(engine.usage.reply_tokens - 1, engine.decode_seconds),
        )

    def _tell_position(self, position: int) -> None:
        self._mailbox.put(Queued(position))

    def _tell_load(self, progress: LoadProgress) -> None:
        self._mailbox.put(Queued(0, progress))


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if tokens > 0 and seconds > 0 else 0.0
