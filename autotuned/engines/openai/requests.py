"""Requests of one model: which server takes them, who stands in for it, and what failures mean.

``model`` makes one for each incarnation. A server that cannot be reached, has no time, or lets nobody in
has done nothing yet: an equal is asked at once, each at most once. Invariants: once an answer has begun,
nothing of it is asked for again; a request that ends in any other way than with its answer raises one of
the core's errors; no message has a token in it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from autotuned.core.errors import AutotuneError, EngineUnreachable, QueueFull
from autotuned.core.generation import EngineEvent, EngineFinished
from autotuned.engines.chat_events import (
    EngineProblem,
    ProblemData,
    StreamReader,
    UnreadableStream,
    problem_in,
)
from autotuned.engines.http import ConnectionBroken, ConnectionSilent, EventSplitter, Exchange
from autotuned.engines.openai.body import Call
from autotuned.engines.openai.kinds import Ability
from autotuned.engines.openai.refusals import NOT_FOUND, has_no_path, quoted, refusal
from autotuned.engines.openai.server import OK, UNAUTHORIZED, Server

TOO_MANY = 429
# A gateway whose server is gone, or a server that is not ready.
UNAVAILABLE = frozenset({502, 503, 504})
# How many conversations are remembered with the server that has their prompt.
REMEMBERED = 4096

CallFor = Callable[[Ability], Call]


class EndingReader(StreamReader, Protocol):
    """A reader that can tell whether a stream that ends was complete."""

    def end(self) -> list[EngineEvent]:
        """The last event, where it was."""


class UpstreamRequests:
    """Sends requests to the servers that list a model."""

    def __init__(
        self, *, engine: str, servers: Sequence[Server], model_id: str, silence_seconds: float
    ) -> None:
        self._engine = engine
        self._servers = servers
        self._model_id = model_id
        self._silence_seconds = silence_seconds
        self._served_by: dict[str, Server] = {}
        self._open: set[Exchange] = set()
        self._gone = ""

    def end(self, cause: str) -> None:
        """Ends what runs, and refuses what comes: the incarnation is gone."""
        self._gone = self._gone or cause
        for exchange in tuple(self._open):
            exchange.close()

    async def stream(
        self, call_for: CallFor, reader: EndingReader, conversation: str
    ) -> AsyncGenerator[EngineEvent, None]:
        """The events of an answer as they come. Closing it closes the connection.

        Raises what ``LoadedModel.generate`` raises.
        """
        async with (
            self._answer(call_for, conversation) as (server, call, exchange),
            aclosing(_events(exchange, reader)) as events,
        ):
            try:
                async for event in events:
                    if isinstance(event, EngineFinished):
                        self._finished(server, exchange, conversation)
                    yield event
            except (ConnectionBroken, ConnectionSilent, EngineProblem, UnreadableStream) as error:
                raise self._failure(server, error, call) from error

    async def fetch(self, call_for: CallFor) -> bytes:
        """The body of an answer that comes whole. Raises like ``stream``."""
        async with self._answer(call_for, "") as (server, call, exchange):
            try:
                return await exchange.read_all()
            except (ConnectionBroken, ConnectionSilent) as error:
                raise self._failure(server, error, call) from error

    def unreadable(self, error: Exception) -> EngineUnreachable:
        """The error of an answer that is not what it should be."""
        return self._unreachable(
            f'The server of "{self._model_id}" sent an answer that cannot be read ({error})'
        )

    @asynccontextmanager
    async def _answer(
        self, call_for: CallFor, conversation: str
    ) -> AsyncIterator[tuple[Server, Call, Exchange]]:
        """An answer that has begun well, from the first of the equals that gives one."""
        tried: list[Server] = []
        failure: AutotuneError | None = None
        while (server := self._next(tried, conversation)) is not None:
            tried.append(server)
            call = call_for(server.ability)
            exchange = server.exchange(
                call.target, call.body, silence_seconds=self._silence_seconds, at_root=call.at_root
            )
            server.active_count += 1
            self._open.add(exchange)
            try:
                async with exchange:
                    failure = await self._begin(server, exchange, call)
                    if failure is None:
                        yield server, call, exchange
                        return
            except ConnectionBroken as error:
                if self._gone:
                    raise self._failure(server, error, call) from error
                server.failed(f"it cannot be reached: {error}")
                failure = self._not_taken(f"{server.url} cannot be reached ({error})")
            finally:
                self._open.discard(exchange)
                server.active_count -= 1
        raise failure or self._nobody()

    async def _begin(self, server: Server, exchange: Exchange, call: Call) -> AutotuneError | None:
        """None where the answer begins; an error that an equal may mend. Raises one that none can."""
        try:
            status = await exchange.status()
            body = b"" if status == OK else await exchange.read_all()
        except ConnectionSilent as error:
            raise self._failure(server, error, call) from error
        if status == OK:
            if "html" in await exchange.header("content-type"):
                raise self._not_an_api(server, status)
            return None
        problem = problem_in(body, status)
        problem.code = status
        if status == TOO_MANY:
            seconds = _seconds(await exchange.header("retry-after"))
            server.failed("it has too many requests", rest_seconds=seconds, is_busy=True)
            return self._busy(server.rest_seconds)
        if status in UNAUTHORIZED:
            server.failed(f"it refuses {server.token_problem()}")
            return self._not_taken(f"{server.url} refuses {server.token_problem()} ({status}); mend that")
        if status in UNAVAILABLE:
            server.failed(f"it answers {status} ({quoted(problem.message)})")
            return self._not_taken(f"{server.url} is not available ({status}, {quoted(problem.message)})")
        raise self._refusal(server, problem, call)

    def _next(self, tried: Sequence[Server], conversation: str) -> Server | None:
        """The one with the least to do for its size; among those the one that has the prompt already."""
        if self._gone:
            raise self._unreachable(f'"{self._model_id}" is gone: {self._gone}')
        usable = [
            server
            for server in self._servers
            if server.is_usable and server not in tried and self._model_id in server.models
        ]
        last = self._served_by.get(conversation)
        return min(
            usable,
            key=lambda server: (server.active_count / server.ability.slots_count, server is not last),
            default=None,
        )

    def _finished(self, server: Server, exchange: Exchange, conversation: str) -> None:
        server.served()
        exchange.release()
        self._served_by.pop(conversation, None)
        self._served_by[conversation] = server
        if len(self._served_by) > REMEMBERED:
            del self._served_by[next(iter(self._served_by))]

    def _failure(self, server: Server, error: Exception, call: Call) -> AutotuneError:
        """What a request that could not be carried through has to say."""
        if self._gone:
            return self._unreachable(f'"{self._model_id}" is gone: {self._gone}')
        if isinstance(error, EngineProblem):
            return self._refusal(server, error.problem, call)
        if isinstance(error, UnreadableStream):
            return self._unreachable(f"{server.url} sent an answer that cannot be read ({error})")
        what = "fell silent" if isinstance(error, ConnectionSilent) else "broke off its answer"
        server.failed(f"it {what}: {error}")
        return self._unreachable(f"{server.url} {what} ({error})")

    def _refusal(self, server: Server, problem: ProblemData, call: Call) -> AutotuneError:
        listed = server.models.get(self._model_id)
        error = refusal(
            problem,
            call,
            model_id=self._model_id,
            known_ids=list(server.models),
            context_tokens=listed.context_tokens if listed else 0,
        )
        if error is not None:
            return error
        if problem.code == NOT_FOUND and has_no_path(problem):
            return self._not_an_api(server, problem.code)
        status = f"{problem.code}, " if problem.code else ""
        return self._unreachable(f"{server.url} failed ({status}{quoted(problem.message)})")

    def _not_an_api(self, server: Server, status: int) -> EngineUnreachable:
        return self._unreachable(
            f"{server.url} does not speak OpenAI's dialect there (it answers {status}); "
            f'correct the entry of "{self._engine}" in openai.upstreams'
        )

    def _nobody(self) -> AutotuneError:
        """Why no server can take a request now."""
        having = [server for server in self._servers if self._model_id in server.models]
        waiting = [server.rest_seconds for server in having if server.is_busy and server.rest_seconds]
        if waiting:
            return self._busy(min(waiting))
        problems = [f"{server.url}: {server.problem}" for server in having or self._servers if server.problem]
        why = "; ".join(problems) or "no server lists it any more"
        return self._not_taken(f'No server of "{self._engine}" can take "{self._model_id}" ({why})')

    def _busy(self, seconds: float) -> QueueFull:
        return QueueFull(
            f'The servers of "{self._engine}" have too many requests; try again in {seconds:.0f} seconds.',
            retry_seconds=seconds,
            model=self._model_id,
        )

    def _not_taken(self, what: str) -> EngineUnreachable:
        error = self._unreachable(what)
        error.served = False
        return error

    def _unreachable(self, what: str) -> EngineUnreachable:
        return EngineUnreachable(
            f"{what}; send the request again.", model=self._model_id, engine=self._engine
        )


async def _events(exchange: Exchange, reader: EndingReader) -> AsyncGenerator[EngineEvent, None]:
    """What is in an answer. Raises ``ConnectionBroken`` where it ends before it is complete."""
    splitter = EventSplitter()
    broken = ConnectionBroken("it ended too early")
    try:
        while data := await exchange.read():
            for event in _read(splitter, data, reader):
                yield event
            if reader.finished:
                return
        # The last event may lack its empty line.
        for event in _read(splitter, b"\n\n", reader):
            yield event
    except ConnectionBroken as error:
        broken = error
    if reader.finished:
        return
    # Some servers end without a mark; one that had told why it finishes has said everything.
    ends = reader.end()
    for event in ends:
        yield event
    if not ends:
        raise broken


def _read(splitter: EventSplitter, data: bytes, reader: EndingReader) -> Iterator[EngineEvent]:
    """The events of what came, up to the last."""
    for block in splitter.feed(data):
        yield from reader.feed(block)
        if reader.finished:
            return


def _seconds(retry_after: str) -> float:
    """A header that tells seconds; 0 where it tells none, or a date."""
    try:
        seconds = float(retry_after)
    except ValueError:
        return 0.0
    return seconds if 0.0 < seconds < float("inf") else 0.0
