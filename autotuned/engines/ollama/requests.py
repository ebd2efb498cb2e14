"""Generations that stream from the server, and what their failures mean.

``model`` makes one for each incarnation.
Invariants: a request that ends in any other way than with its answer raises one of the core's errors; once
``end`` was called none of them goes on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from autotuned.core.errors import AutotuneError, EngineUnreachable
from autotuned.core.generation import EngineEvent
from autotuned.engines.chat_events import UnreadableStream
from autotuned.engines.http import ConnectionBroken, ConnectionSilent, Exchange, LineSplitter
from autotuned.engines.ollama.body import Call, Incarnation
from autotuned.engines.ollama.client import OK, error_text
from autotuned.engines.ollama.events import AnswerReader, ServerProblem
from autotuned.engines.ollama.refusals import quoted, refusal
from autotuned.engines.ollama.server import Server

FIRST_SERVER_ERROR = 500


class OllamaRequests:
    """The requests of one loaded model, each on a connection of its own."""

    def __init__(self, *, server: Server, incarnation: Incarnation, silence_seconds: float) -> None:
        self._server = server
        self._incarnation = incarnation
        self._silence_seconds = silence_seconds
        self._open: set[Exchange] = set()
        self._ended = ""

    @property
    def are_under_way(self) -> bool:
        """Whether one of them runs."""
        return bool(self._open)

    def end(self, cause: str) -> None:
        """Breaks off what runs, and refuses what comes: ``cause`` says why. Safe to call twice."""
        self._ended = self._ended or cause
        for exchange in tuple(self._open):
            exchange.close()

    async def stream(self, call: Call, reader: AnswerReader) -> AsyncGenerator[EngineEvent, None]:
        """The events of an answer as they come. Closing it closes the connection.

        Raises what ``LoadedModel.generate`` raises.
        """
        if self._ended:
            raise self._gone(served=False)
        exchange = Exchange(
            endpoint=self._server.endpoint,
            method="POST",
            target=call.target,
            body=call.body,
            silence_seconds=self._silence_seconds,
        )
        connected = False
        self._open.add(exchange)
        try:
            async with exchange:
                connected = True
                if (status := await exchange.status()) != OK:
                    raise self._refusal(error_text(await exchange.read_all()), status, call)
                async for line in lines_of(exchange):
                    for event in reader.feed(line):
                        yield event
                    if reader.finished:
                        return
        except ServerProblem as error:
            raise self._refusal(str(error), FIRST_SERVER_ERROR, call) from error
        except UnreadableStream as error:
            raise self._server.unreachable(f"sent an answer that cannot be read ({error})") from error
        except (ConnectionBroken, ConnectionSilent) as error:
            raise await self._failure(error, connected=connected) from error
        finally:
            self._open.discard(exchange)
        # So it does with one that repeats a token again and again, too.
        raise self._server.unreachable("ended its answer too early")

    def _refusal(self, message: str, status: int, call: Call) -> AutotuneError:
        incarnation = self._incarnation
        error = refusal(
            message,
            status,
            call,
            model=incarnation.model.name,
            context_tokens=incarnation.context_tokens,
        )
        return error or self._server.unreachable(f"failed ({quoted(message)})")

    async def _failure(self, error: Exception, *, connected: bool) -> EngineUnreachable:
        """Why a connection ended before its answer did."""
        if self._ended:
            return self._gone(served=connected)
        if isinstance(error, ConnectionSilent):
            return self._server.unreachable(f"fell silent ({error})")
        cause = await self._server.failed()
        if self._ended:
            return self._gone(served=connected)
        return self._server.unreachable(
            f"is gone: {cause}" if cause else f"broke off its answer ({error})", served=connected
        )

    def _gone(self, *, served: bool) -> EngineUnreachable:
        name = self._incarnation.model.name
        error = EngineUnreachable(
            f'"{name}" is not in Ollama\'s memory any more: {self._ended}; send the request again.',
            model=name,
        )
        error.served = served
        return error


async def lines_of(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """The lines of a body; the last one may lack its end."""
    splitter = LineSplitter()
    while data := await exchange.read():
        for line in splitter.feed(data):
            yield line
    if rest := splitter.rest():
        yield rest
