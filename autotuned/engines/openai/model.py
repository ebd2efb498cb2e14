"""One model of a name's servers, as if it were loaded: whoever serves it has its memory, not we.

``engine`` makes it, ``services`` use it through the port ``LoadedModel``. Invariants: closing
``generate`` closes its connection; after ``unload`` nothing runs and nothing is answered, while the
servers know nothing of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import msgspec

from autotuned.core.chat import ChatInput, GenerationRequest, RawPrompt
from autotuned.core.errors import Unsupported
from autotuned.core.generation import EngineEvent, EngineFinished, FinishReason, PrefillProgress, Usage
from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape
from autotuned.core.prefix import WrittenPrefix
from autotuned.engines.answers import UNREADABLE
from autotuned.engines.chat_events import ChatReader
from autotuned.engines.openai.body import Call, count_call, generation_call
from autotuned.engines.openai.completions import CompletionReader
from autotuned.engines.openai.kinds import Ability
from autotuned.engines.openai.requests import EndingReader, UpstreamRequests
from autotuned.engines.openai.stops import StopFilter

NOTHING = Footprint(
    weights_bytes=0, repacked_weights_bytes=0, kv_cache_bytes=0, compute_bytes=0, process_bytes=0
)


class _TokenList(msgspec.Struct):
    tokens: list[msgspec.Raw]


class _TokenCount(msgspec.Struct):
    input_tokens: int


class OpenaiModel:
    """A model that servers list."""

    def __init__(
        self, *, incarnation_id: str, model_id: str, shape: LoadShape, requests: UpstreamRequests
    ) -> None:
        self._incarnation_id = incarnation_id
        self.model_id = model_id
        self._shape = shape
        self._requests = requests
        self._gone = asyncio.Event()
        self._cause = ""

    @property
    def incarnation_id(self) -> str:
        """Unique for the life of the machine."""
        return self._incarnation_id

    @property
    def shape(self) -> LoadShape:
        """What its servers tell; the rest is assumed."""
        return self._shape

    @property
    def process_id(self) -> int:
        """None of this machine's."""
        return 0

    @property
    def is_gone(self) -> bool:
        """Whether it was unloaded, or no server has listed it for a while."""
        return self._gone.is_set()

    @property
    def footprint(self) -> Footprint:
        """Nothing of this machine's memory is ours to plan."""
        return NOTHING

    async def generate(
        self, request: GenerationRequest, conversation: str
    ) -> AsyncGenerator[EngineEvent, None]:
        """See ``LoadedModel.generate``."""
        async with aclosing(self._run(request, conversation, keeps_prompt=False)) as events:
            async for event in events:
                yield event

    async def _run(
        self, request: GenerationRequest, conversation: str, *, keeps_prompt: bool
    ) -> AsyncGenerator[EngineEvent, None]:
        """The events of a request. Which server takes it decides how it is written.

        With ``keeps_prompt`` one that does not cache prompts refuses it.
        """
        filters: list[StopFilter] = []

        def call_for(ability: Ability) -> Call:
            if keeps_prompt and not ability.traits.caches:
                raise Unsupported("This server is not known to keep prompts; send the request itself.")
            call = generation_call(request, self.model_id, ability)
            sequences = () if ability.traits.stops else request.stop_sequences
            filters[:] = [StopFilter(sequences)]
            return call

        async with aclosing(self._requests.stream(call_for, _reader(request), conversation)) as events:
            async for event in events:
                for passed in filters[0].feed(event):
                    yield passed
                if filters[0].stopped:
                    # Its server would go on: it is left, and its counts are never told.
                    yield EngineFinished(FinishReason.STOP, Usage(0, 0, 0), 0.0, 0.0)
                    return

    async def prefill(
        self, request: GenerationRequest, conversation: str
    ) -> AsyncGenerator[PrefillProgress, None]:
        """See ``LoadedModel.prefill``. The server draws one token, which is dropped.

        Raises ``Unsupported`` where nothing would come of it.
        """
        asked = replace(request, max_reply_tokens=1, stop_sequences=())
        async with aclosing(self._run(asked, conversation, keeps_prompt=True)) as events:
            async for event in events:
                if isinstance(event, PrefillProgress):
                    yield event

    def holds(self, conversation: str) -> bool:
        """Nobody tells where a server keeps what."""
        _ = conversation
        return False

    async def save_prefix(self, conversation: str, file_name: str) -> WrittenPrefix:
        """Raises ``Unsupported``: the state lies in servers that do not give it away."""
        _ = conversation, file_name
        raise Unsupported("KV prefixes of a server cannot be saved; the server keeps them itself.")

    async def restore_prefix(self, conversation: str, file_name: str) -> int:
        """Raises ``Unsupported``, as above."""
        _ = conversation, file_name
        raise Unsupported("KV prefixes of a server cannot be restored; the server keeps them itself.")

    async def count_tokens(self, chat: ChatInput | str) -> int:
        """See ``LoadedModel.count_tokens``. Raises ``Unsupported`` where the server counts nothing."""
        body = await self._requests.fetch(partial(_count_call, chat, self.model_id))
        try:
            if isinstance(chat, str):
                return len(msgspec.json.decode(body, type=_TokenList).tokens)
            return msgspec.json.decode(body, type=_TokenCount).input_tokens
        except UNREADABLE as error:
            raise self._requests.unreadable(error) from error

    async def unload(self) -> None:
        """Ends what runs here. The servers keep the model. Safe to call twice."""
        self.end("it was unloaded")

    async def release(self) -> None:
        """Nobody else uses it: it ends."""
        await self.unload()

    async def wait_gone(self) -> str:
        """Returns the cause once it is gone."""
        await self._gone.wait()
        return self._cause

    def end(self, cause: str) -> None:
        """It is gone for this cause, unless it was before."""
        if not self._gone.is_set():
            self._cause = cause
            self._requests.end(cause)
            self._gone.set()


def _count_call(chat: ChatInput | str, model_id: str, ability: Ability) -> Call:
    return count_call(chat, model_id, ability)


def _reader(request: GenerationRequest) -> EndingReader:
    if isinstance(request.input, RawPrompt):
        return CompletionReader(request.top_logprobs_count)
    return ChatReader(request.top_logprobs_count, awaits_done=True)
