"""One loaded model: a worker that serves, the requests that run on it, and the KV state that it keeps.

``engine`` makes it, ``services`` use it through the port ``LoadedModel``.
Invariants: closing ``generate`` closes its connection, which is what stops the engine; whatever
touches a slot has taken it; the engine reads no KV state that it did not write, whole, for this model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import msgspec

from autotuned.core.chat import ChatInput, GenerationRequest, RawPrompt
from autotuned.core.errors import Unsupported
from autotuned.core.generation import EngineEvent, EngineFinished, PrefillProgress, TextDelta
from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape
from autotuned.core.prefix import WrittenPrefix
from autotuned.engines.chat_events import ChatReader, problem_in
from autotuned.engines.continuation import with_reply_so_far
from autotuned.engines.llamacpp.body import (
    SLOTS_CALL,
    Call,
    count_call,
    generation_call,
    prefill_call,
    restore_call,
    save_call,
)
from autotuned.engines.llamacpp.events import PromptReader
from autotuned.engines.llamacpp.log import WorkerLog
from autotuned.engines.llamacpp.prompts import Prompts
from autotuned.engines.llamacpp.refusals import quoted
from autotuned.engines.llamacpp.requests import OK, WorkerRequests
from autotuned.engines.llamacpp.slots import Slot, Slots
from autotuned.engines.model_defaults import NO_DEFAULTS, ModelDefaults
from autotuned.engines.prefix_file import PrefixFiles
from autotuned.engines.process import WorkerProcess

# How often a slot is looked at whose last request was given up; the engine ends it after its batch.
SETTLE_SECONDS = 0.005
# Of a prompt whose state the engine has kept, at least so much is cached.
KEPT_SHARE = 0.9
# What the engine answers when a file could not be written to its end.
SERVER_ERROR = 500


class _TokenList(msgspec.Struct):
    tokens: list[msgspec.Raw]


class _TokenCount(msgspec.Struct):
    input_tokens: int


class _SlotState(msgspec.Struct):
    id: int
    is_processing: bool


class _Saved(msgspec.Struct):
    n_saved: int
    n_written: int


class _Restored(msgspec.Struct):
    n_restored: int


class LlamacppModel:
    """A model in a worker of its own."""

    def __init__(
        self,
        *,
        incarnation_id: str,
        shape: LoadShape,
        footprint: Footprint,
        model_thinks: bool,
        worker: WorkerProcess[WorkerLog],
        requests: WorkerRequests,
        prefix_files: PrefixFiles,
        defaults: ModelDefaults = NO_DEFAULTS,
    ) -> None:
        self._incarnation_id = incarnation_id
        self._shape = shape
        self._footprint = footprint
        self._model_thinks = model_thinks
        self._worker = worker
        self._requests = requests
        self._prefix_files = prefix_files
        self._defaults = defaults
        self._slots = Slots(shape.slots_count)
        self._prompts = Prompts()

    @property
    def incarnation_id(self) -> str:
        """Unique for the life of the machine."""
        return self._incarnation_id

    @property
    def shape(self) -> LoadShape:
        """What the worker reported after the load."""
        return self._shape

    @property
    def footprint(self) -> Footprint:
        """What the worker reported while it loaded, and the memory of its process after that."""
        return self._footprint

    @property
    def process_id(self) -> int:
        """The worker's."""
        return self._worker.process_id

    @property
    def is_gone(self) -> bool:
        """Whether the worker has ended."""
        return self._worker.is_gone

    async def generate(
        self, request: GenerationRequest, conversation: str
    ) -> AsyncGenerator[EngineEvent, None]:
        """See ``LoadedModel.generate``."""
        request = with_reply_so_far(self._defaults.filled(request), model_thinks=self._model_thinks)
        texts = [request.reply_so_far]
        async with aclosing(self._stream(request, generation_call(request), conversation)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    texts.append(event.text)
                elif isinstance(event, EngineFinished):
                    self._prompts.add_reply(conversation, "".join(texts))
                yield event

    def prefill(self, request: GenerationRequest, conversation: str) -> AsyncGenerator[PrefillProgress, None]:
        """See ``LoadedModel.prefill``. The engine draws one token even so; it is dropped."""
        return self._prefill(self._defaults.filled(request), conversation)

    async def _prefill(
        self, request: GenerationRequest, conversation: str
    ) -> AsyncGenerator[PrefillProgress, None]:
        request = with_reply_so_far(request, model_thinks=self._model_thinks)
        async with aclosing(self._stream(request, prefill_call(request), conversation)) as events:
            async for event in events:
                if isinstance(event, PrefillProgress):
                    yield event

    def holds(self, conversation: str) -> bool:
        """See ``LoadedModel.holds``."""
        return self._slots.has_holder(conversation)

    async def save_prefix(self, conversation: str, file_name: str) -> WrittenPrefix:
        """See ``LoadedModel.save_prefix``."""
        if not self._slots.has_holder(conversation) and not await self._fetch_back(conversation):
            return WrittenPrefix(0, 0)
        async with self._slots.take_holder(conversation) as slot:
            if slot is None:
                return WrittenPrefix(0, 0)
            call = save_call(slot.number, file_name)
            status, body = await self._requests.fetch(call)
        if status == SERVER_ERROR:
            raise self._prefix_files.unwritten(quoted(problem_in(body, status).message))
        if status != OK:
            raise self._requests.refusal(problem_in(body, status), call)
        saved = self._requests.decode(body, _Saved)
        return await asyncio.to_thread(
            self._prefix_files.finish, file_name, WrittenPrefix(saved.n_saved, saved.n_written)
        )

    async def restore_prefix(self, conversation: str, file_name: str) -> int:
        """See ``LoadedModel.restore_prefix``."""
        if not await asyncio.to_thread(self._prefix_files.is_sound, file_name):
            return 0
        async with self._slots.take(conversation) as slot:
            # Whatever comes of it, what the slot held is gone.
            slot.holds = ""
            status, body = await self._requests.fetch(restore_call(slot.number, file_name))
            if status != OK:
                return 0
            restored_tokens = self._requests.decode(body, _Restored).n_restored
            if restored_tokens:
                self._slots.hold(slot, conversation)
            return restored_tokens

    async def _fetch_back(self, conversation: str) -> bool:
        """Has the engine put a state that it keeps beside its slots into one; whether it did.

        Only a request makes it do so: the prompt is asked for again, and left where it would be computed.
        """
        request = self._prompts.of(conversation)
        if request is None:
            return False
        try:
            request = with_reply_so_far(request, model_thinks=self._model_thinks)
        except Unsupported:  # then the prompt alone is fetched
            request = replace(request, reply_so_far="")
        async with aclosing(self._prefill(request, conversation)) as progress:
            async for state in progress:
                if state.cached_tokens < KEPT_SHARE * state.prompt_tokens:
                    return False
        return True

    async def count_tokens(self, chat: ChatInput | str) -> int:
        """See ``LoadedModel.count_tokens``. A text counts as a raw prompt does."""
        call = count_call(chat if isinstance(chat, str) else self._defaults.begun(chat))
        status, body = await self._requests.fetch(call)
        if status != OK:
            raise self._requests.refusal(problem_in(body, status), call)
        if isinstance(chat, str):
            return len(self._requests.decode(body, _TokenList).tokens)
        return self._requests.decode(body, _TokenCount).input_tokens

    async def unload(self) -> None:
        """Ends the worker and returns when it is gone. Safe to call twice."""
        await self._worker.end("it was unloaded")

    async def release(self) -> None:
        """Nobody else uses it: it ends."""
        await self.unload()

    async def wait_gone(self) -> str:
        """Returns why the worker ended, once it has."""
        return await self._worker.wait_gone()

    async def _stream(
        self, request: GenerationRequest, call: Call, conversation: str
    ) -> AsyncGenerator[EngineEvent, None]:
        """The events of a request, on a slot that is its own meanwhile."""
        reader = (PromptReader if isinstance(request.input, RawPrompt) else ChatReader)(
            request.top_logprobs_count
        )
        async with self._slots.take(conversation) as slot:
            if self._slots.count > 1:
                await self._settle(slot)
                call = call.on_slot(slot.number)
            held, slot.is_settled = slot.holds, False
            # In doubt until the first event: the engine may have put the slot's state away to choose another.
            slot.holds = held if held == conversation or not self._shape.host_prompt_cache_bytes else ""
            async with aclosing(self._requests.stream(call, reader)) as events:
                begun = False
                async for event in events:
                    if not begun:
                        begun = True
                        self._slots.hold(slot, conversation)
                        if self._shape.host_prompt_cache_bytes and not request.discard:
                            self._prompts.add(conversation, request, len(call.body))
                    yield event
            slot.is_settled = True

    async def _settle(self, slot: Slot) -> None:
        """Waits until the worker has let go of a request that was given up on this slot.

        Otherwise the engine, told to use this slot, puts its state away while it is at work.
        """
        while not slot.is_settled:
            _, body = await self._requests.fetch(SLOTS_CALL)
            states = self._requests.decode(body, list[_SlotState])
            slot.is_settled = not any(state.is_processing for state in states if state.id == slot.number)
            if not slot.is_settled:
                await asyncio.sleep(SETTLE_SECONDS)
