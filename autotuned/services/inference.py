"""Runs generations: refuses at once what can never run, waits for a turn and a model, runs, records.

Called by ``rpc.inference``. It owns the queue of each model and what was learned of each model's
tokens per byte. Invariant: an engine is never sent more requests than its slots hold; every request
that began ends in exactly one record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress

from autotuned.core.chat import ChatInput, GenerationRequest
from autotuned.core.errors import AutotuneError, ContextTooLong, Unsupported
from autotuned.core.generation import GenerationEvent
from autotuned.core.model import ModelEntry
from autotuned.core.ports import Capabilities, Clock, RequestLog
from autotuned.core.record import RequestRecord
from autotuned.core.settings import ModelSettings, QueueSettings
from autotuned.log import fields
from autotuned.policy import sizing
from autotuned.policy.capabilities import chat_refusal, refusal
from autotuned.policy.prompt import messages_count, prompt_bytes
from autotuned.services.generation import Generation
from autotuned.services.mailbox import Mailbox
from autotuned.services.models import Models
from autotuned.services.turns import Turns

_log = logging.getLogger(__name__)


class Inference:
    """All generations of the daemon."""

    def __init__(
        self,
        *,
        models: Models,
        slots_count: int,
        model_settings: ModelSettings,
        queue_settings: QueueSettings,
        request_log: RequestLog,
        clock: Clock,
    ) -> None:
        self._models = models
        self._slots_count = slots_count
        self._model_settings = model_settings
        self._queue_settings = queue_settings
        self._request_log = request_log
        self._clock = clock
        self._turns: dict[str, Turns] = {}
        self._tokens_per_byte: dict[str, float] = {}
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
        actor = await self._models.actor(request.model)
        self._refuse_at_once(request, actor.entry)
        mailbox = Mailbox()
        generation = Generation(
            request=request,
            actor=actor,
            turns=self._turns_of(actor.entry.id),
            tokens_per_byte=self._tokens_per_byte,
            profile=request.profile or self._model_settings.profile,
            mailbox=mailbox,
            clock=self._clock,
        )
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

    async def count_tokens(self, model_id: str, prompt: ChatInput | str) -> tuple[int, bool]:
        """Tokens of a prompt, and whether the count is exact: it is when the model is loaded."""
        actor = await self._models.actor(model_id)
        if isinstance(prompt, ChatInput):
            self._refuse(chat_refusal(prompt, self._capabilities(actor.entry)), actor.entry)
        if lease := actor.lease_now():
            with lease:
                return await lease.loaded.count_tokens(prompt), True
        known = self._tokens_per_byte.get(actor.entry.id, sizing.DEFAULT_TOKENS_PER_BYTE)
        if isinstance(prompt, str):
            return sizing.estimate_prompt_tokens(len(prompt.encode()), 0, known), False
        return sizing.estimate_prompt_tokens(prompt_bytes(prompt), messages_count(prompt), known), False

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

    def _refuse_at_once(self, request: GenerationRequest, entry: ModelEntry) -> None:
        template = entry.facts.chat_template if entry.facts else ""
        self._refuse(refusal(request, self._capabilities(entry), template), entry)
        facts = entry.facts
        least_tokens = sizing.least_prompt_tokens(prompt_bytes(request.input))
        if facts is not None and 0 < facts.train_context_tokens <= least_tokens:
            raise ContextTooLong(
                prompt_tokens=least_tokens, context_tokens=facts.train_context_tokens, at_least=True
            )

    def _refuse(self, problem: str, entry: ModelEntry) -> None:
        if problem:
            raise Unsupported(f"{problem} (engine {entry.engine}).", engine=entry.engine, model=entry.id)

    def _capabilities(self, entry: ModelEntry) -> Capabilities:
        return self._models.engine_of(entry).capabilities()

    def _turns_of(self, model_id: str) -> Turns:
        if model_id not in self._turns:
            self._turns[model_id] = Turns(
                model=model_id, slots_count=self._slots_count, settings=self._queue_settings
            )
        return self._turns[model_id]

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
