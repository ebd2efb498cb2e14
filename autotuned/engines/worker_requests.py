"""Requests to one worker: answers that stream, answers that come whole, and what their failures mean.

An engine with workers has a class of its own that knows its refusals, and makes one for each incarnation.
Invariant: a request that ends in any other way than with its answer raises one of the core's errors.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any, Protocol, TypeVar

import msgspec

from autotuned.core.errors import AutotuneError, EngineUnreachable
from autotuned.core.generation import EngineEvent
from autotuned.engines.answers import UNREADABLE
from autotuned.engines.chat_events import (
    EngineProblem,
    ProblemData,
    StreamReader,
    UnreadableStream,
    problem_in,
)
from autotuned.engines.endpoint import Endpoint
from autotuned.engines.http import (
    ConnectionBroken,
    ConnectionSilent,
    EventSplitter,
    Exchange,
    fetch,
)
from autotuned.engines.process import WorkerProcess

OK = 200
# How long a broken connection waits to learn why the worker died.
CAUSE_SECONDS = 1.0

LONGEST_QUOTE = 300

_SPACES = re.compile(r"\s+")
_Answer = TypeVar("_Answer")


def quoted(message: str) -> str:
    """An engine's words as part of one sentence."""
    return _SPACES.sub(" ", message).strip().rstrip(".")[:LONGEST_QUOTE]


class Call(Protocol):
    """Where a request goes, and its JSON."""

    @property
    def target(self) -> str:
        """Path and query."""

    @property
    def body(self) -> bytes:
        """What is sent."""

    @property
    def method(self) -> str:
        """The verb of HTTP."""


class WorkerRequests:
    """Sends requests to a worker, each on a connection of its own."""

    def __init__(
        self,
        *,
        worker: WorkerProcess[Any],
        model_id: str,
        incarnation_id: str,
        silence_seconds: float,
    ) -> None:
        self._worker = worker
        self._endpoint = Endpoint.unix(worker.socket_path)
        self.model_id = model_id
        self._incarnation_id = incarnation_id
        self._silence_seconds = silence_seconds

    async def stream(self, call: Call, reader: StreamReader) -> AsyncGenerator[EngineEvent, None]:
        """The events of an answer as they come. Closing it closes the connection.

        Raises what ``LoadedModel.generate`` raises.
        """
        splitter = EventSplitter()
        status = 0
        try:
            async with self._exchange(call) as exchange:
                if (status := await exchange.status()) != OK:
                    raise self.refusal(problem_in(await exchange.read_all(), status), call)
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
        raise self.unreachable("ended its answer too early")

    async def fetch(self, call: Call) -> tuple[int, bytes]:
        """Status and body of an answer that comes whole. Raises ``EngineUnreachable``."""
        try:
            return await fetch(
                self._endpoint,
                call.method,
                call.target,
                call.body,
                silence_seconds=self._silence_seconds,
            )
        except (ConnectionBroken, ConnectionSilent) as error:
            raise await self._failure(error, call) from error

    def decode(self, body: bytes, kind: type[_Answer]) -> _Answer:
        """The JSON of an answer. Raises ``EngineUnreachable`` where it is something else."""
        try:
            return msgspec.json.decode(body, type=kind)
        except UNREADABLE as error:
            raise self.unreachable(f"sent an answer that cannot be read ({error})") from error

    def refusal(self, problem: ProblemData, call: Call) -> AutotuneError:
        """What an error of the server means to the client; here, that it failed."""
        _ = call
        return self.unreachable(f"failed ({quoted(problem.message)})")

    def unreachable(self, what: str) -> EngineUnreachable:
        """The error of a worker of which this is to be said."""
        return EngineUnreachable(
            f'The worker of "{self.model_id}" {what}; send the request again, a new worker will take it.',
            model=self.model_id,
            incarnationId=self._incarnation_id,
        )

    def _exchange(self, call: Call) -> Exchange:
        return Exchange(
            endpoint=self._endpoint,
            method=call.method,
            target=call.target,
            body=call.body,
            silence_seconds=self._silence_seconds,
        )

    async def _failure(self, error: Exception, call: Call) -> AutotuneError:
        """What a request that could not be carried through has to say."""
        if isinstance(error, EngineProblem):
            return self.refusal(error.problem, call)
        if isinstance(error, UnreadableStream):
            return self.unreachable(f"sent an answer that cannot be read ({error})")
        if isinstance(error, ConnectionSilent):
            self._worker.kill("it fell silent and was ended")
        if cause := await self._worker.gone_within(CAUSE_SECONDS):
            return self.unreachable(f"is gone: {cause}")
        return self.unreachable(f"broke off its answer ({error})")
