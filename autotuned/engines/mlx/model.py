"""One loaded model: a worker that serves, the requests that run on it, and the KV states that it keeps.

``engine`` makes it, ``services`` use it through the port ``LoadedModel``.
Invariants: closing ``generate`` closes its connection, which is what stops the worker; one request at a
time touches a state; the worker reads no state that it did not write, whole, for this model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from autotuned.core.chat import ChatInput, GenerationRequest
from autotuned.core.errors import StorageFull
from autotuned.core.generation import EngineEvent, PrefillProgress
from autotuned.core.memory import Footprint
from autotuned.core.plan import LoadShape
from autotuned.core.prefix import WrittenPrefix
from autotuned.engines.chat_events import ChatReader, problem_in
from autotuned.engines.continuation import with_reply_so_far
from autotuned.engines.mlx.log import WorkerLog
from autotuned.engines.mlx.protocol import (
    RESTORE_TARGET,
    SAVE_TARGET,
    Counted,
    WorkerStatus,
    Written,
)
from autotuned.engines.mlx.requests import (
    STATUS_CALL,
    Call,
    MlxRequests,
    count_call,
    file_call,
    generation_call,
)
from autotuned.engines.prefix_file import PrefixFiles
from autotuned.engines.process import WorkerProcess
from autotuned.engines.worker_requests import OK


class MlxModel:
    """A model in a worker of its own."""

    def __init__(
        self,
        *,
        incarnation_id: str,
        shape: LoadShape,
        footprint: Footprint,
        model_thinks: bool,
        worker: WorkerProcess[WorkerLog],
        requests: MlxRequests,
        prefix_files: PrefixFiles,
    ) -> None:
        self._incarnation_id = incarnation_id
        self._shape = shape
        self._footprint = footprint
        self._model_thinks = model_thinks
        self._worker = worker
        self._requests = requests
        self._prefix_files = prefix_files
        self._current = ""

    @property
    def incarnation_id(self) -> str:
        """Unique for the life of the machine."""
        return self._incarnation_id

    @property
    def shape(self) -> LoadShape:
        """What the worker was told, and what MLX decides."""
        return self._shape

    @property
    def footprint(self) -> Footprint:
        """What the worker reported when it was loaded."""
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
        request = with_reply_so_far(request, model_thinks=self._model_thinks)
        call = generation_call(request, conversation)
        async with aclosing(self._stream(request, call, conversation)) as events:
            async for event in events:
                yield event

    async def prefill(
        self, request: GenerationRequest, conversation: str
    ) -> AsyncGenerator[PrefillProgress, None]:
        """See ``LoadedModel.prefill``."""
        request = with_reply_so_far(request, model_thinks=self._model_thinks)
        call = generation_call(request, conversation, prefill_only=True)
        async with aclosing(self._stream(request, call, conversation)) as events:
            async for event in events:
                if isinstance(event, PrefillProgress):
                    yield event

    def holds(self, conversation: str) -> bool:
        """See ``LoadedModel.holds``: whether it was used last."""
        return conversation != "" and conversation == self._current

    async def save_prefix(self, conversation: str, file_name: str) -> WrittenPrefix:
        """See ``LoadedModel.save_prefix``."""
        call = file_call(SAVE_TARGET, conversation, file_name)
        status, body = await self._requests.fetch(call)
        if status != OK:
            refusal = self._requests.refusal(problem_in(body, status), call)
            raise (
                self._prefix_files.unwritten(refusal.message) if isinstance(refusal, StorageFull) else refusal
            )
        saved = self._requests.decode(body, Written)
        if not saved.tokens_count:
            return WrittenPrefix(0, 0)
        self._current = conversation
        return await asyncio.to_thread(
            self._prefix_files.finish, file_name, WrittenPrefix(saved.tokens_count, saved.bytes_count)
        )

    async def restore_prefix(self, conversation: str, file_name: str) -> int:
        """See ``LoadedModel.restore_prefix``."""
        if not await asyncio.to_thread(self._prefix_files.is_sound, file_name):
            return 0
        status, body = await self._requests.fetch(file_call(RESTORE_TARGET, conversation, file_name))
        if status != OK:
            return 0
        tokens_count = self._requests.decode(body, Written).tokens_count
        if tokens_count:
            self._current = conversation
        return tokens_count

    async def count_tokens(self, chat: ChatInput | str) -> int:
        """See ``LoadedModel.count_tokens``. A text counts as a raw prompt does."""
        call = count_call(chat)
        status, body = await self._requests.fetch(call)
        if status != OK:
            raise self._requests.refusal(problem_in(body, status), call)
        return self._requests.decode(body, Counted).tokens_count

    async def status(self) -> WorkerStatus:
        """What the worker does and holds now. Raises ``EngineUnreachable``."""
        _, body = await self._requests.fetch(STATUS_CALL)
        return self._requests.decode(body, WorkerStatus)

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
        reader = ChatReader(request.top_logprobs_count)
        async with aclosing(self._requests.stream(call, reader)) as events:
            async for event in events:
                self._current = conversation
                yield event
