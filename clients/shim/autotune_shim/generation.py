"""The transport of one generation: a body in, a whole answer or a stream of events out.

Every dialect's generation endpoints are a ``GenerationEndpoint``. Invariant: a request ends in
exactly one of: an answer, a refusal with its HTTP status, a stream whose last event is the error, or,
for a client that has gone, nothing; and in each of these the daemon's call is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from autotune import AsyncClient
from autotune.errors import AutotuneError, Internal, ShuttingDown
from autotune.v1.inference_service_pb2 import GenerateRequest, GenerateResponse
from starlette.types import Receive, Scope, Send

from autotune_shim.disconnect import until_disconnect
from autotune_shim.exchange import Dialect, Headers, HttpReply, RequestInvalid, StreamAnswer, WholeAnswer
from autotune_shim.http import ClientGone, headers_of, read_body, send_reply
from autotune_shim.stream import EventStream, Pace

_logger = logging.getLogger(__name__)

Responses = AsyncGenerator[GenerateResponse, None]


def client_of(scope: Scope) -> AsyncClient:
    """The connection to the daemon, which the app's lifespan opened."""
    client: AsyncClient = scope["state"]["client"]
    return client


class GenerationEndpoint:
    """An ASGI application that answers generations in one dialect."""

    def __init__(self, dialect: Dialect, pace: Pace) -> None:
        self._dialect = dialect
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        stream: EventStream | None = None
        try:
            headers = headers_of(scope)
            exchange = self._dialect.read(await read_body(receive, headers), headers)
            answer = exchange.answer
            if isinstance(answer, StreamAnswer):
                stream = EventStream(send, answer, self._pace)
                async with until_disconnect(receive), stream:
                    await _stream(_begin(scope, headers, exchange.request), answer, stream)
                await stream.end()
            else:
                async with until_disconnect(receive):
                    reply = await _gather(_begin(scope, headers, exchange.request), answer)
                await send_reply(send, reply)
        except ClientGone:
            return
        except (RequestInvalid, AutotuneError) as error:
            await self._fail(send, stream, error)
        except asyncio.CancelledError:
            # The server stops and waits no longer. The task ends here, with a word to the client.
            await self._fail(
                send, stream, ShuttingDown("The server is shutting down; try again in a moment.")
            )
        except Exception as error:
            _logger.exception("an answer broke")
            await self._fail(send, stream, error)

    async def _fail(self, send: Send, stream: EventStream | None, error: Exception) -> None:
        if stream is None or not stream.started:
            await send_reply(send, self._dialect.refuse(error))
            return
        await stream.fail(error)


def _begin(scope: Scope, headers: Headers, request: GenerateRequest) -> Responses:
    """The daemon tells agents apart by who asks: by the program behind the HTTP request, not this server."""
    program, _, _ = headers.get("user-agent", "").partition(" ")
    return client_of(scope).generate(request, on_behalf_of=program)


async def _stream(generation: Responses, answer: StreamAnswer, stream: EventStream) -> None:
    async with aclosing(generation) as responses:
        async for response in responses:
            if response.HasField("queued"):
                stream.queue_position = response.queued.position
                continue
            data = answer.event(response)
            if data:
                await stream.write(data)
    if not answer.complete:
        raise _broken_off()


async def _gather(generation: Responses, answer: WholeAnswer) -> HttpReply:
    async with aclosing(generation) as responses:
        async for response in responses:
            if not response.HasField("queued"):
                answer.event(response)
    if not answer.complete:
        raise _broken_off()
    return answer.reply()


def _broken_off() -> Internal:
    return Internal("The daemon ended the answer before it was complete; its log has the details.")
