"""One loaded model: a worker that serves, and the requests that run on it.

``engine`` makes it, ``services`` use it through the port ``LoadedModel``.
Invariants: closing ``generate`` closes its connection, which is what stops the engine; a request
that ends in any other way than with ``EngineFinished`` raises.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from autotuned.core.chat import ChatInput, GenerationRequest, RawPrompt
from autotuned.core.errors import AutotuneError, EngineUnreachable
from autotuned.core.generation import EngineEvent
from autotuned.core.plan import LoadShape
from autotuned.engines.llamacpp.body import Call, count_call, generation_call
from autotuned.engines.llamacpp.connection import (
    ConnectionBroken,
    ConnectionSilent,
    EventSplitter,
    Exchange,
    fetch,
)
from autotuned.engines.llamacpp.events import (
    ChatReader,
    EngineProblem,
    ProblemData,
    PromptReader,
    UnreadableStream,
    problem_in,
)
from autotuned.engines.llamacpp.process import WorkerProcess
from autotuned.engines.llamacpp.refusals import quoted, refusal

OK = 200
# How long a broken connection waits to learn why the worker died.
CAUSE_SECONDS = 1.0


class _TokenList(msgspec.Struct):
    tokens: list[msgspec.Raw]


class _TokenCount(msgspec.Struct):
    input_tokens: int


class LlamacppModel:
    """A model in a worker of its own."""

    def __init__(
        self,
        *,
        incarnation_id: str,
        model_id: str,
        shape: LoadShape,
        worker: WorkerProcess,
        silence_seconds: float,
    ) -> None:
        self._incarnation_id = incarnation_id
        self._model_id = model_id
        self._shape = shape
        self._worker = worker
        self._silence_seconds = silence_seconds

    @property
    def incarnation_id(self) -> str:
        """Unique for the life of the machine."""
        return self._incarnation_id

    @property
    def shape(self) -> LoadShape:
        """What the worker reported after the load."""
        return self._shape

    @property
    def process_id(self) -> int:
        """The worker's."""
        return self._worker.process_id

    @property
    def is_gone(self) -> bool:
        """Whether the worker has ended."""
        return self._worker.is_gone

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[EngineEvent, None]:
        """See ``LoadedModel.generate``."""
        call = generation_call(request)
        is_raw = isinstance(request.input, RawPrompt)
        reader = (PromptReader if is_raw else ChatReader)(request.top_logprobs_count)
        splitter = EventSplitter()
        status = 0
        try:
            async with self._exchange(call) as exchange:
                if (status := await exchange.status()) != OK:
                    raise self._refusal(problem_in(await exchange.read_all(), status), call)
                while data := await exchange.read():
                    for block in splitter.feed(data):
                        for event in reader.feed(block):
                            yield event
                        if reader.finished:
                            return
        except (ConnectionBroken, ConnectionSilent, EngineProblem, UnreadableStream) as error:
            failure = await self._failure(error, call)
            if isinstance(failure, EngineUnreachable) and isinstance(error, ConnectionBroken) and not status:
                failure.served = False
            raise failure from error
        raise self._unreachable("ended its answer too early")

    async def count_tokens(self, chat: ChatInput | str) -> int:
        """See ``LoadedModel.count_tokens``. A text counts as a raw prompt does."""
        call = count_call(chat)
        try:
            status, body = await fetch(
                str(self._worker.socket_path),
                "POST",
                call.target,
                call.body,
                silence_seconds=self._silence_seconds,
            )
            if status != OK:
                raise self._refusal(problem_in(body, status), call)
            if isinstance(chat, str):
                return len(msgspec.json.decode(body, type=_TokenList).tokens)
            return msgspec.json.decode(body, type=_TokenCount).input_tokens
        except msgspec.DecodeError as error:
            raise await self._failure(UnreadableStream(str(error)), call) from error
        except (ConnectionBroken, ConnectionSilent) as error:
            raise await self._failure(error, call) from error

    async def unload(self) -> None:
        """Ends the worker and returns when it is gone. Safe to call twice."""
        await self._worker.end("it was unloaded")

    async def wait_gone(self) -> str:
        """Returns why the worker ended, once it has."""
        return await self._worker.wait_gone()

    def _exchange(self, call: Call) -> Exchange:
        return Exchange(
            socket_path=str(self._worker.socket_path),
            method="POST",
            target=call.target,
            body=call.body,
            silence_seconds=self._silence_seconds,
        )

    async def _failure(self, error: Exception, call: Call) -> AutotuneError:
        """What a request that could not be carried through has to say."""
        if isinstance(error, EngineProblem):
            return self._refusal(error.problem, call)
        if isinstance(error, UnreadableStream):
            return self._unreachable(f"sent an answer that cannot be read ({error})")
        if isinstance(error, ConnectionSilent):
            self._worker.kill("it fell silent and was ended")
        if cause := await self._worker.gone_within(CAUSE_SECONDS):
            return self._unreachable(f"is gone: {cause}")
        return self._unreachable(f"broke off its answer ({error})")

    def _unreachable(self, what: str) -> EngineUnreachable:
        return EngineUnreachable(
            f'The worker of "{self._model_id}" {what}; send the request again, a new worker will take it.',
            model=self._model_id,
            incarnationId=self._incarnation_id,
        )

    def _refusal(self, problem: ProblemData, call: Call) -> AutotuneError:
        error = refusal(problem, call, model_id=self._model_id, context_tokens=self._shape.context_tokens)
        return error or self._unreachable(f"failed ({quoted(problem.message)})")
