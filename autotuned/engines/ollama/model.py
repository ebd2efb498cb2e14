"""One loaded model: the requests that run on it, and its end.

``engine`` makes it, ``services`` use it through the port ``LoadedModel``.
Invariants: closing ``generate`` closes its connection, which is what stops the engine; every request has the
load options of the load, so that none of ours makes Ollama load the model anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from autotuned.core.chat import ChatInput, GenerationRequest
from autotuned.core.errors import EngineUnreachable, Unsupported
from autotuned.core.generation import EngineEvent, EngineFinished, PrefillProgress
from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape
from autotuned.core.prefix import WrittenPrefix
from autotuned.engines.ollama.body import Call, Incarnation, generation_call, prefill_call
from autotuned.engines.ollama.events import AnswerReader
from autotuned.engines.ollama.requests import OllamaRequests

# A request that waits for at least this share of what the load took, and for so long, was a load.
RELOAD_SHARE = 0.5
LEAST_RELOAD_SECONDS = 0.3


class OllamaModel:
    """A model in the memory of Ollama's server.

    ``leave`` has the server let go of it and returns when it has; ``give_back`` leaves it to those who had it
    in memory before, None where nobody had; ``on_reload`` hears that the server loaded
    it anew for a request of ours.
    """

    def __init__(
        self,
        *,
        incarnation_id: str,
        incarnation: Incarnation,
        shape: LoadShape,
        footprint: Footprint,
        load_seconds: float,
        requests: OllamaRequests,
        leave: Callable[[OllamaModel], Awaitable[None]],
        on_reload: Callable[[OllamaModel], None],
        give_back: Callable[[OllamaModel], Awaitable[None]] | None = None,
    ) -> None:
        self.incarnation = incarnation
        self._incarnation_id = incarnation_id
        self._shape = shape
        self._footprint = footprint
        self._load_seconds = load_seconds
        self._requests = requests
        self._leave = leave
        self._on_reload = on_reload
        self._give_back = give_back
        self._gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._leaving: asyncio.Task[None] | None = None

    @property
    def incarnation_id(self) -> str:
        """Unique for the life of the machine."""
        return self._incarnation_id

    @property
    def shape(self) -> LoadShape:
        """What was asked for and what the server tells, with the rest assumed."""
        return self._shape

    @property
    def footprint(self) -> Footprint:
        """What the server told after the load."""
        return self._footprint

    @property
    def process_id(self) -> int:
        """None of the daemon's."""
        return 0

    @property
    def is_gone(self) -> bool:
        """Whether the server has let go of it, or is gone itself."""
        return self._gone.done()

    @property
    def is_at_work(self) -> bool:
        """Whether a request runs on it, or its end has begun."""
        return self._requests.are_under_way or self._leaving is not None

    async def generate(
        self, request: GenerationRequest, conversation: str
    ) -> AsyncGenerator[EngineEvent, None]:
        """See ``LoadedModel.generate``. Ollama finds what it has computed by itself."""
        _ = conversation
        call = generation_call(request, self.incarnation)
        async with aclosing(self._stream(call, self._reader(request))) as events:
            async for event in events:
                yield event

    async def prefill(
        self, request: GenerationRequest, conversation: str
    ) -> AsyncGenerator[PrefillProgress, None]:
        """See ``LoadedModel.prefill``. One token is drawn and dropped; the counts come with the end.

        Tools alone are no prompt for Ollama: nothing is computed then.
        """
        _ = conversation
        if isinstance(request.input, ChatInput) and not request.input.messages:
            return
        call = prefill_call(request, self.incarnation)
        async with aclosing(self._stream(call, self._reader(request))) as events:
            async for event in events:
                if isinstance(event, EngineFinished):
                    usage = event.usage
                    yield PrefillProgress(usage.prompt_tokens, usage.cached_tokens, usage.prompt_tokens)

    def holds(self, conversation: str) -> bool:
        """Ollama does not tell what lies where."""
        _ = conversation
        return False

    async def save_prefix(self, conversation: str, file_name: str) -> WrittenPrefix:
        """Raises ``Unsupported``: the server has no way to it."""
        raise _no_prefixes(conversation, file_name)

    async def restore_prefix(self, conversation: str, file_name: str) -> int:
        """Raises ``Unsupported``: the server has no way to it."""
        raise _no_prefixes(conversation, file_name)

    async def count_tokens(self, chat: ChatInput | str) -> int:
        """Raises ``Unsupported``: the server counts nothing but what it computes."""
        _ = chat
        raise Unsupported("Ollama counts no tokens before it computes them; use the estimate.")

    async def unload(self) -> None:
        """Has the server let go of it, and returns when it has. Safe to call twice."""
        if self.is_gone:
            return
        if self._leaving is None:
            self._requests.end("it was unloaded")
            self._leaving = asyncio.create_task(self._unload(), name=f"unload {self._incarnation_id}")
        await asyncio.shield(self._leaving)

    async def release(self) -> None:
        """It ends, unless others had it in memory before."""
        if self._give_back is None or self.is_gone or self._leaving is not None:
            await self.unload()
            return
        self._requests.end("the daemon let go of it")
        self._leaving = asyncio.create_task(self._release(self._give_back))
        await asyncio.shield(self._leaving)

    async def wait_gone(self) -> str:
        """Returns why it is gone, once it is."""
        return await asyncio.shield(self._gone)

    def end(self, cause: str) -> None:
        """It is gone; ``cause`` says why, as a clause. Safe to call twice."""
        self._requests.end(cause)
        if not self._gone.done():
            self._gone.set_result(cause)

    async def _unload(self) -> None:
        try:
            await self._leave(self)
        finally:
            self.end("it was unloaded")

    async def _release(self, give_back: Callable[[OllamaModel], Awaitable[None]]) -> None:
        try:
            await give_back(self)
        finally:
            self.end("the daemon let go of it")

    def _reader(self, request: GenerationRequest) -> AnswerReader:
        calls_one_tool = isinstance(request.input, ChatInput) and request.input.parallel_tool_calls is False
        return AnswerReader(request.top_logprobs_count, calls_one_tool=calls_one_tool)

    async def _stream(self, call: Call, reader: AnswerReader) -> AsyncGenerator[EngineEvent, None]:
        try:
            async with aclosing(self._requests.stream(call, reader)) as events:
                async for event in events:
                    yield event
        except EngineUnreachable as error:
            # Whoever sees the error finds the incarnation as it is: gone, where the server is.
            error.metadata.setdefault("incarnationId", self._incarnation_id)
            raise
        finally:
            if reader.load_seconds >= max(LEAST_RELOAD_SECONDS, RELOAD_SHARE * self._load_seconds):
                self._on_reload(self)


def _no_prefixes(conversation: str, file_name: str) -> Unsupported:
    _ = conversation, file_name
    return Unsupported("Ollama saves no KV prefixes; what it has computed stays with it while it runs.")
