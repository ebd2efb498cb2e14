"""HTTP/1.1 over a worker's Unix socket: one request on each connection, answers as they come.

``model`` and ``readiness`` use it. A connection is never used twice: the server closes idle ones at
times of its own, and closing is also how a request is cancelled.
Invariant: whatever happens, ``close`` leaves no descriptor, timer or task behind.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, cast

import httptools

# Bodies up to this size travel in one write with the head.
SMALL_BODY_BYTES = 64 << 10


class ConnectionBroken(Exception):
    """The server cannot be reached, or broke off its answer."""


class ConnectionSilent(Exception):
    """The server sent nothing for too long."""


class Exchange(asyncio.Protocol):
    """One request and its answer.

    Used as an async context manager: entering connects and sends, leaving closes. The bytes of the
    answer are kept until they are read; the server never waits for a reader.
    """

    def __init__(
        self, *, socket_path: str, method: str, target: str, body: bytes = b"", silence_seconds: float
    ) -> None:
        self._socket_path = socket_path
        self._request = (
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        self._body = body
        self._silence_seconds = silence_seconds
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._status = 0
        self._complete = False
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        """Connects and sends the request. Raises ``ConnectionBroken``."""
        try:
            await self._loop.create_unix_connection(lambda: self, self._socket_path)
        except OSError as error:
            raise ConnectionBroken(error.strerror or str(error)) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection."""
        self.close()

    async def status(self) -> int:
        """The status code. Raises ``ConnectionBroken`` and ``ConnectionSilent``."""
        while not self._status:
            await self._more()
        return self._status

    async def read(self) -> bytes:
        """What has come of the body since the last read; waits for more, empty at the end.

        Raises ``ConnectionBroken`` and ``ConnectionSilent``.
        """
        while not self._pieces:
            if self._complete:
                return b""
            await self._more()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        return data

    async def read_all(self) -> bytes:
        """The whole body. Raises ``ConnectionBroken`` and ``ConnectionSilent``."""
        while not self._complete:
            await self._more()
        return b"".join(self._pieces)

    def close(self) -> None:
        """Ends the connection now. Safe to call twice."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _more(self) -> None:
        """Waits until something happened that was not there before."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self._complete:
            self._error = error
        self._wake()

    def _watch(self) -> None:
        """Looks whether the server was heard lately; one timer serves the whole answer."""
        due = self._heard_at + self._silence_seconds
        if self._loop.time() < due:
            self._watchdog = self._loop.call_at(due, self._watch)
            return
        self._watchdog = None
        self._fail(ConnectionSilent(f"nothing came for {self._silence_seconds:g} seconds"))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the request."""
        self._transport = stream = cast("asyncio.Transport", transport)
        if len(self._body) <= SMALL_BODY_BYTES:
            stream.write(self._request + self._body)
        else:
            stream.write(self._request)
            stream.write(self._body)
        self._body = b""
        self._heard_at = self._loop.time()
        self._watchdog = self._loop.call_at(self._heard_at + self._silence_seconds, self._watch)

    def data_received(self, data: bytes) -> None:
        """Parses what came and wakes the reader once."""
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionBroken(f"the answer is not HTTP: {error}"))
            self.close()
            return
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that is not complete by now never will be."""
        self._fail(ConnectionBroken(str(exc) if exc else "the connection was closed in mid-answer"))
        self.close()

    # What the parser calls.

    def on_headers_complete(self) -> None:
        """The status is known."""
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """A piece of the body, already without its transfer encoding."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The answer is complete."""
        self._complete = True


async def fetch(
    socket_path: str, method: str, target: str, body: bytes = b"", *, silence_seconds: float
) -> tuple[int, bytes]:
    """Status and body of one short answer. Raises ``ConnectionBroken`` and ``ConnectionSilent``."""
    async with Exchange(
        socket_path=socket_path, method=method, target=target, body=body, silence_seconds=silence_seconds
    ) as exchange:
        status = await exchange.status()
        return status, await exchange.read_all()


class EventSplitter:
    """Splits a stream of server-sent events into their data, however it is cut into pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that are complete now, in order."""
        blocks = (self._rest + data if self._rest else data).split(b"\n\n")
        self._rest = blocks.pop()
        return [block[6:] for block in blocks if block.startswith(b"data: ")]
