"""Runs generations: refuses at once what can never run, waits for a turn and a model, runs, records.

Called by ``rpc.inference``. It owns the queue of each model. Invariant: an engine is never sent more
requests than its slots hold; every request that began ends in exactly one record; a prewarm holds up no
request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from autotuned.core.chat import ChatInput, GenerationRequest, ProfileName, RawPrompt
from autotuned.core.engine import Capabilities
from autotuned.core.errors import AutotuneError, ContextTooLong, Unsupported
from autotuned.core.generation import GenerationEvent, Prewarmed
from autotuned.core.model import ModelEntry
from autotuned.core.plan import LoadShape, Need, Plan
from autotuned.core.ports import Clock, RequestLog
from autotuned.core.record import RequestRecord
from autotuned.core.settings import ModelSettings, QueueSettings
from autotuned.log import fields
from autotuned.policy import sizing
from autotuned.policy.capabilities import chat_refusal, refusal
from autotuned.policy.profiles import PROFILES, reply_room
from autotuned.policy.prompt import messages_count, prompt_bytes
from autotuned.services.beginnings import Beginnings
from autotuned.services.generation import Generation
from autotuned.services.learning import Learning
from autotuned.services.mailbox import Mailbox
from autotuned.services.model_actor import ModelActor
from autotuned.services.models import Listing, Models, Routed
from autotuned.services.prefixes import Prefixes
from autotuned.services.prewarm import Prewarm
from autotuned.services.request_context import RequestContext
from autotuned.services.sessions import Sessions
from autotuned.services.turns import Turns

_log = logging.getLogger(__name__)


class Inference:
    """All generations of the daemon."""

    def __init__(
        self,
        *,
        models: Models,
        model_settings: ModelSettings,
        queue_settings: QueueSettings,
        request_log: RequestLog,
        learning: Learning,
        sessions: Sessions,
        prefixes: Prefixes,
        clock: Clock,
    ) -> None:
        self._models = models
        self._model_settings = model_settings
        self._queue_settings = queue_settings
        self._request_log = request_log
        self._learning = learning
        self._sessions = sessions
        self._prefixes = prefixes
        self._beginnings = Beginnings()
        self._clock = clock
        self._turns: dict[str, Turns] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._records: set[asyncio.Task[None]] = set()

    @property
    def active_requests_count(self) -> int:
        """Requests that hold a turn."""
        return sum(turns.active_count for turns in self._turns.values())

    @property
    def queued_requests_count(self) -> int:
        """Requests that wait for a turn."""
        return sum(turns.waiting_count for turns in self._turns.values())

    def queued_for(self, model_id: str) -> int:
        """Requests that wait for a turn of one model."""
        turns = self._turns.get(model_id)
        return turns.waiting_count if turns else 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationEvent, None]:
        """Yields Queued*, Started, deltas, Finished. Closing it stops the generation.

        Raises the errors that ``InferenceService.Generate`` documents.
        """
        routed = await self._route(request)
        context, mailbox = self._context(request, routed), Mailbox()
        generation = Generation(context=context, turns=self._turns_of(routed.actor), mailbox=mailbox)
        task = asyncio.create_task(generation.run(), name=f"generate {generation.request_id}")
        self._running.add(task)
        task.add_done_callback(lambda _: self._ended(task, generation.record()))
        try:
            async for event in mailbox.events():
                yield event
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def prewarm(self, request: GenerationRequest) -> Prewarmed:
        """Loads the model and computes the prompt's state, for as long as no request wants the model.

        Raises the errors that ``InferenceService.Prewarm`` documents.
        """
        routed = await self._route(request)
        prewarm = Prewarm(self._context(request, routed))
        done = await self._turns_of(routed.actor).in_spare_time(prewarm.run)
        return prewarm.result(overtaken=not done)

    async def need(self, request: GenerationRequest) -> Need:
        """What a request needs of its model. Raises like ``Models.actor``."""
        actor = await self._models.actor(request.model, request.engine)
        return self._need(self._complete(request), actor.entry.learned_as, prompt_bytes(request.input))

    async def plan(
        self, request: GenerationRequest, prompt_tokens: int | None
    ) -> tuple[Listing, Plan, LoadShape | None]:
        """What would be decided for a request, without running it; and the shape that is loaded now.

        ``prompt_tokens`` is exact; None counts the prompt as ``count_tokens`` does. Raises like
        ``Models.plan``, and what engines raise that count.
        """
        routed = await self._route(request)
        actor = routed.actor
        need = self._need(self._complete(request), actor.entry.learned_as, prompt_bytes(request.input))
        is_exact = prompt_tokens is not None
        if prompt_tokens is None and not _is_empty(request.input):
            prompt = request.input.prompt if isinstance(request.input, RawPrompt) else request.input
            prompt_tokens, is_exact = await self._count(actor, prompt)
        return await self._models.plan(
            routed,
            replace(need, prompt_tokens=prompt_tokens or 0, prompt_is_exact=is_exact),
        )

    async def count_tokens(self, model_id: str, prompt: ChatInput | str) -> tuple[int, bool]:
        """Tokens of a prompt, and whether the count is exact: it is when the model is loaded.

        An engine that cannot count leaves it at the estimate.
        """
        return await self._count(await self._models.actor(model_id), prompt)

    async def _count(self, actor: ModelActor, prompt: ChatInput | str) -> tuple[int, bool]:
        capabilities = self._capabilities(actor.entry)
        if isinstance(prompt, ChatInput):
            self._refuse(chat_refusal(prompt, capabilities), actor.entry)
        if capabilities.exact_token_counts and (lease := actor.lease_now()):
            with lease:
                return await lease.loaded.count_tokens(prompt), True
        counted = RawPrompt(prompt) if isinstance(prompt, str) else prompt
        size = prompt_bytes(counted)
        return self._learning.estimate(actor.entry.learned_as, size, messages_count(counted)), False

    def refuse_new_work(self) -> None:
        """The daemon stops: nothing starts any more, and who waits is sent away."""
        self._models.refuse_new_work()
        for turns in self._turns.values():
            turns.refuse_waiting()

    async def drain(self, deadline_seconds: float) -> None:
        """Waits for the running requests; cancels those that are left at the deadline."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=deadline_seconds)
            for task in late:
                task.cancel()
            if late:
                _log.warning("drain deadline reached", extra=fields(cancelled_requests=len(late)))
                await asyncio.wait(late)
        await asyncio.sleep(0)  # lets the done callbacks start their records
        if self._records:
            await asyncio.wait(self._records)

    async def _route(self, request: GenerationRequest) -> Routed:
        return await self._models.routed(request.model, request.engine, partial(_refusal, request))

    def _context(self, request: GenerationRequest, routed: Routed) -> RequestContext:
        """The request with everything around it. Raises for what can never be."""
        actor = routed.actor
        complete, size = self._complete(request), prompt_bytes(request.input)
        learned_as = actor.entry.learned_as
        self._refuse_at_once(request, actor.entry, size)
        return RequestContext(
            request=complete,
            prompt_bytes=size,
            need=self._need(complete, learned_as, size),
            learned_as=learned_as,
            actor=actor,
            model_name=routed.name,
            route_reasons=routed.reasons,
            engine=self._models.engine_of(actor.entry),
            learning=self._learning,
            sessions=self._sessions,
            prefixes=self._prefixes,
            beginnings=self._beginnings,
            clock=self._clock,
        )

    def _complete(self, request: GenerationRequest) -> GenerationRequest:
        """The request with what is configured where it is silent about the load."""
        return replace(
            request,
            profile=request.profile or self._model_settings.profile,
            swap_policy=request.swap_policy or self._models.swap_policy,
        )

    def _need(self, request: GenerationRequest, learned_as: str, size: int) -> Need:
        profile = request.profile or ProfileName.BALANCED
        prompt_tokens = self._learning.estimate(learned_as, size, messages_count(request.input))
        return Need(
            prompt_tokens=prompt_tokens,
            prompt_is_exact=False,
            reply_tokens=reply_room(request.max_reply_tokens, PROFILES[profile]),
            session_tokens=self._sessions.expected_tokens(request, learned_as, prompt_tokens),
            context_tokens=request.context_tokens,
            profile=profile,
            swap_policy=request.swap_policy or self._models.swap_policy,
        )

    def _refuse_at_once(self, request: GenerationRequest, entry: ModelEntry, size: int) -> None:
        self._refuse(_refusal(request, entry, self._capabilities(entry)), entry)
        facts = entry.facts
        least_tokens = sizing.least_prompt_tokens(size)
        if facts is not None and 0 < facts.train_context_tokens <= least_tokens:
            raise ContextTooLong(
                prompt_tokens=least_tokens, context_tokens=facts.train_context_tokens, at_least=True
            )

    def _refuse(self, problem: str, entry: ModelEntry) -> None:
        if problem:
            raise Unsupported(f"{problem} (engine {entry.engine}).", engine=entry.engine, model=entry.id)

    def _capabilities(self, entry: ModelEntry) -> Capabilities:
        return self._models.engine_of(entry).capabilities()

    def _turns_of(self, actor: ModelActor) -> Turns:
        model_id, slots_count = actor.model_id, self._capabilities(actor.entry).slots_count
        turns = self._turns.get(model_id)
        if turns is None:
            turns = self._turns[model_id] = Turns(
                model=model_id, slots_count=slots_count, settings=self._queue_settings
            )
        turns.resize(slots_count)  # a server tells how many it has when a model is loaded there
        return turns

    def _ended(self, task: asyncio.Task[None], record: RequestRecord) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("generation broke", exc_info=task.exception(), extra=fields(request=record.request_id))
        writing = asyncio.create_task(self._write(record), name=f"record {record.request_id}")
        self._records.add(writing)
        writing.add_done_callback(self._records.discard)

    async def _write(self, record: RequestRecord) -> None:
        """A record that cannot be written costs the record, never the answer."""
        try:
            await self._request_log.append(record)
        except AutotuneError as error:
            _log.error(
                "request was not recorded", extra=fields(request=record.request_id, reason=error.reason)
            )


def _refusal(request: GenerationRequest, entry: ModelEntry, capabilities: Capabilities) -> str:
    """Why this engine cannot run the request on this model; "" where it can."""
    return refusal(request, capabilities, entry.facts) if entry.facts else ""


def _is_empty(prompt: ChatInput | RawPrompt) -> bool:
    """Whether nothing is known of a prompt."""
    return isinstance(prompt, ChatInput) and not prompt.messages and not prompt.tools
