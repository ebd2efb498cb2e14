"""The life of one generation, from its turn to its last token.

``services.inference`` makes one for each request and runs it as a task of its own, so that a slow
reader holds back neither the engine nor the next request. Invariant: the turn is given back when
the engine ends, whatever the reader does; the mailbox is ended exactly once; a reply that goes on in
a larger context is one stream with one start and one end.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import aclosing
from dataclasses import replace

from autotuned.core.chat import GenerationRequest, ProfileName
from autotuned.core.errors import AutotuneError, ContextTooLong, EngineUnreachable, ShuttingDown
from autotuned.core.generation import (
    EngineEvent,
    EngineFinished,
    Finished,
    FinishReason,
    PrefillProgress,
    Queued,
    Started,
    TextDelta,
)
from autotuned.core.model import LoadProgress
from autotuned.core.record import RequestRecord
from autotuned.log import fields
from autotuned.policy.continuation import cannot_go_on, rest_of
from autotuned.policy.profiles import PROFILES, reply_room, with_defaults
from autotuned.services.lease import Lease
from autotuned.services.leasing import Leasing
from autotuned.services.mailbox import Mailbox
from autotuned.services.prefix_use import PrefixUse
from autotuned.services.request_context import RequestContext
from autotuned.services.tally import Tally
from autotuned.services.turns import Turns

_log = logging.getLogger(__name__)


class Generation:
    """One request, answered into ``mailbox``."""

    def __init__(self, *, context: RequestContext, turns: Turns, mailbox: Mailbox) -> None:
        request = context.request
        self._profile = PROFILES[request.profile or ProfileName.BALANCED]
        self.request_id = uuid.uuid4().hex
        self._context = context
        self._capabilities = context.engine.capabilities()
        sampling = with_defaults(request.sampling, self._profile, self._capabilities.sampling)
        self._request = replace(request, sampling=sampling)
        self._asked = self._request  # or the rest of it
        self._rest: GenerationRequest | None = None
        self._turns = turns
        self._mailbox = mailbox
        self._tally = Tally(context.clock)
        self._leasing = Leasing(
            actor=context.actor,
            need=context.need,
            keep_alive_seconds=request.keep_alive_seconds,
            on_progress=self._tell_load,
            on_waited=self._tally.waited,
            clock=context.clock,
        )
        self._texts: list[str] = []
        self._only_text = True
        self._filled_tokens = 0  # of the context that the reply so far came to the end of
        self._went_on = False
        self._finished: Finished | None = None
        self._error_reason = ""
        self._cancelled = False

    async def run(self) -> None:
        """Carries the request out; every outcome ends the mailbox."""
        try:
            async with self._turns.turn(self._tell_position):
                self._tally.got_turn()
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
        timings = finished.timings if finished else self._tally.timings()
        usage = self._tally.usage
        outcome = finished.finish_reason.value if finished else ""
        plan = self._leasing.plan
        return RequestRecord(
            request_id=self.request_id,
            model=self._context.entry.id,
            engine=self._context.entry.engine,
            started_at=self._tally.started_at,
            finish_reason="cancelled" if self._cancelled else outcome,
            error_reason=self._error_reason,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            reply_tokens=usage.reply_tokens,
            queue_seconds=timings.queue_seconds,
            load_seconds=timings.load_seconds,
            time_to_first_token_seconds=timings.time_to_first_token_seconds,
            prefill_seconds=timings.prefill_seconds,
            decode_seconds=timings.decode_seconds,
            total_seconds=timings.total_seconds,
            decode_tokens_per_second=timings.decode_tokens_per_second,
            shape=plan.shape if plan else None,
        )

    async def _answer(self) -> None:
        """Runs the engine, and again in a larger context where the reply came to the end of one."""
        reason = await self._leasing.use(self._run)
        while self._rest is not None:
            self._prepare(self._rest)
            try:
                reason = await self._leasing.use(self._run_on)
            except ShuttingDown:
                raise
            except AutotuneError as error:
                if self._went_on:
                    raise
                self._say_the_end(error.message)
                break
        self._finished = Finished(reason, self._tally.usage, self._tally.timings())
        self._mailbox.put(self._finished)
        self._context.ended_turn(self._tally.usage)

    def _prepare(self, rest: GenerationRequest) -> None:
        """What is asked and needed from now on is the rest of the reply."""
        usage = self._tally.usage
        self._asked = rest
        self._went_on = False
        self._leasing.need = replace(
            self._leasing.need,
            prompt_tokens=usage.prompt_tokens + usage.reply_tokens,
            prompt_is_exact=True,
            reply_tokens=reply_room(rest.max_reply_tokens, self._profile),
        )

    async def _run_on(self, lease: Lease) -> FinishReason:
        """The rest of the reply, in a context that is larger than the one that it filled."""
        context_tokens = lease.loaded.shape.context_tokens
        if context_tokens <= self._filled_tokens:
            raise ContextTooLong(
                prompt_tokens=self._leasing.need.prompt_tokens, context_tokens=context_tokens
            )
        return await self._run(lease)

    async def _run(self, lease: Lease) -> FinishReason:
        """Forwards what the engine yields until it ends."""
        put, counted = self._mailbox.put, False
        reason: FinishReason | None = None
        async with (
            self._context.prefix(lease.loaded, self._asked) as prefix,
            aclosing(lease.loaded.generate(self._asked, prefix.conversation)) as events,
        ):
            try:
                async for event in events:
                    if not counted:
                        self._begin(event, lease)
                        counted = True
                    if isinstance(event, PrefillProgress):
                        continue
                    if isinstance(event, EngineFinished):
                        lease.came_to(event.usage)
                        self._end_part(event, prefix)
                        reason = event.finish_reason
                    else:
                        self._tally.spoke()
                        self._went_on = True
                        if isinstance(event, TextDelta):
                            self._texts.append(event.text)
                        else:
                            self._only_text = False
                        put(event)
            except asyncio.CancelledError:
                self._stop(prefix, lease)
                raise
        if reason is None:
            raise EngineUnreachable("The engine's answer broke off; try again.")
        self._filled_tokens = lease.loaded.shape.context_tokens
        return reason

    def _begin(self, event: EngineEvent, lease: Lease) -> None:
        """The first event. If it counts, learn from it, and grow where the reply would not fit."""
        if self._asked.reply_so_far:
            return
        progress = event if isinstance(event, PrefillProgress) else None
        if progress is not None:
            self._tally.counted(progress)
            self._context.counted(progress.prompt_tokens)
            self._leasing.counted(lease, progress.prompt_tokens)
        plan = self._leasing.plan or lease.plan
        self._mailbox.put(
            Started(
                self.request_id,
                self._context.model_name,
                self._context.entry.engine,
                plan.with_reasons_before(self._context.route_reasons),
                progress.prompt_tokens if progress else None,
                progress.cached_tokens if progress else None,
            )
        )

    def _end_part(self, part: EngineFinished, prefix: PrefixUse) -> None:
        self._tally.ended_part(part)
        if not self._capabilities.counts_before_prefill and part.usage.prompt_tokens:
            self._context.counted(part.usage.prompt_tokens)
        self._context.prefilled(part.usage.prompt_tokens - part.usage.cached_tokens, part.prefill_seconds)
        text = "".join(self._texts)
        self._rest = self._rest_of(part.finish_reason, text)
        if self._rest is None:
            prefix.ended(part.usage, part.prefill_seconds)
        else:
            prefix.ended_within(text, part.usage, part.prefill_seconds)

    def _stop(self, prefix: PrefixUse, lease: Lease) -> None:
        """A reader who leaves in the middle of the answer leaves a computed prompt: it has its worth."""
        if self._went_on and not self._asked.reply_so_far:
            lease.came_to(self._tally.usage)
            prefix.ended(self._tally.usage, self._tally.seen_prefill_seconds)
            self._context.ended_turn(self._tally.usage)

    def _rest_of(self, reason: FinishReason, text: str) -> GenerationRequest | None:
        """What is still to be asked for; None where the reply is complete, or cannot go on."""
        rest = rest_of(self._request, reason, self._tally.usage.reply_tokens, text)
        problem = ""
        if rest is not None and not self._capabilities.continues_replies:
            problem = "its engine cannot go on with it"
        elif rest is not None:
            problem = cannot_go_on(rest, only_text=self._only_text)
        if problem:
            self._say_the_end(problem)
        return None if problem else rest

    def _say_the_end(self, why: str) -> None:
        _log.info(
            "the reply ends with the context",
            extra=fields(request=self.request_id, model=self._context.entry.id, why=why),
        )

    def _tell_position(self, position: int) -> None:
        self._mailbox.put(Queued(position))

    def _tell_load(self, progress: LoadProgress) -> None:
        """Told to who waits for the answer; in the middle of it there is only the answer."""
        if not self._texts:
            self._mailbox.put(Queued(0, progress))
