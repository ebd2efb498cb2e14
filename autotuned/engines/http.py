"""HTTP/1.1 to an engine: one request on each connection, answers as they come.

Every engine that is a server uses it, on a Unix socket or on TCP. A connection is not used twice: a
server closes idle ones at times of its own, and closing is also how a request is cancelled. Where a
handshake is dear, a ``ConnectionPool`` keeps those whose answer came to its end.
Invariants: whatever happens, ``close`` leaves no descriptor, timer or task behind; however much a server
sends, what is kept of it is bounded.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, cast

import httptools

from autotuned.engines.endpoint import Endpoint, connection_problem
from autotuned.engines.http_pool import ConnectionPool

# Bodies up to this size travel in one write with the head.
SMALL_BODY_BYTES = 64 << 10
# A server that does not take a connection for so long is not there.
CONNECT_SECONDS = 5.0
# How long the end of an answer that is of no interest any more may take, for its connection to be kept.
LINGER_SECONDS = 1.0
# The head of an answer, what of its body nobody has read yet, and one event or line of it have at most this:
# the description of a large vocabulary has some ten megabytes.
MOST_HEAD_BYTES = 256 << 10
MOST_KEPT_BYTES = 128 << 20
MOST_EVENT_BYTES = 32 << 20
# What tells where a body ends.
_LENGTHS = frozenset({"content-length", "transfer-encoding"})


class ConnectionBroken(Exception):
    """The server cannot be reached, or broke off its answer."""


class ConnectionSilent(Exception):
    """The server sent nothing for too long."""


class Exchange(asyncio.Protocol):
    """One request and its answer.

    Used as an async context manager: entering connects and sends, leaving closes. The bytes of the
    answer are kept until they are read; the server never waits for a reader. On a connection of ``pool``
    that breaks before the first byte of the answer, the request is sent once more on a new one.
    """

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        method: str,
        target: str,
        body: bytes = b"",
        silence_seconds: float,
        pool: ConnectionPool | None = None,
    ) -> None:
        self._endpoint = endpoint
        connection = "" if pool else "Connection: close\r\n"
        self._request = (
            f"{method} {endpoint.base_path}{target} HTTP/1.1\r\n{endpoint.head}{connection}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        self._body = body
        self._silence_seconds = silence_seconds
        self._pool = pool
        self._may_resend = False
        self._is_released = False
        self._keeps_open = False
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._kept_bytes = 0
        self._head_bytes = 0
        self._status = 0
        self._headers: dict[str, str] = {}
        self._complete = False
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        """Connects and sends the request. Raises ``ConnectionBroken``."""
        if self._pool is not None and (kept := self._pool.take()):
            self._may_resend = True
            kept.set_protocol(self)
            self.connection_made(kept)
            return self
        try:
            await self._open()
        except BaseException:
            self.close()  # it may be connected, and who waited for it cancelled
            raise
        return self

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connect()
        except TimeoutError as error:
            raise ConnectionBroken(f"no connection within {CONNECT_SECONDS:g} seconds") from error
        except OSError as error:
            raise ConnectionBroken(connection_problem(error)) from error

    async def _connect(self) -> None:
        to = self._endpoint
        if to.unix_path:
            await self._loop.create_unix_connection(lambda: self, to.unix_path)
        else:
            await self._loop.create_connection(lambda: self, to.host, to.port, ssl=to.tls_context)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection, unless it was released."""
        if not self._is_released:
            self.close()

    def allow_silence(self, seconds: float) -> None:
        """From now on the server may say nothing for so long, which is longer than before."""
        self._silence_seconds = seconds

    async def status(self) -> int:
        """The status code. Raises ``ConnectionBroken`` and ``ConnectionSilent``."""
        while not self._status:
            await self._more()
        return self._status

    async def header(self, name: str) -> str:
        """A header of the answer by its name in lower case, "" where it has none. Raises like ``status``."""
        await self.status()
        return self._headers.get(name, "")

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
        self._kept_bytes = 0
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
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if self._pool is not None and self._keeps_open:
            self._pool.give(transport)
        else:
            transport.abort()

    def release(self) -> None:
        """Like ``close``, but the end of the answer may still come, so that the connection can be kept."""
        if self._pool is None or self._transport is None or self._complete:
            self.close()
            return
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = self._loop.call_later(LINGER_SECONDS, self.close)
        self._is_released = True

    async def _more(self) -> None:
        """Waits until something happened that was not there before."""
        if self._error is not None:
            if not self._may_resend or not isinstance(self._error, ConnectionBroken):
                raise self._error
            self._may_resend = False
            self._error = None
            self._parser = httptools.HttpResponseParser(self)
            self._head_bytes = 0
            await self._open()
            return
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

    def _give_up(self, why: str) -> None:
        """Nothing good can come from this server any more."""
        self._fail(ConnectionBroken(why))
        self.close()

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
        if not self._may_resend:
            self._body = b""
        self._heard_at = self._loop.time()
        self._watchdog = self._loop.call_at(self._heard_at + self._silence_seconds, self._watch)

    def data_received(self, data: bytes) -> None:
        """Parses what came and wakes the reader once."""
        self._heard_at = self._loop.time()
        self._may_resend = False
        if not self._status:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._give_up(f"the answer is not HTTP: {error}")
            return
        if not self._status and self._head_bytes > MOST_HEAD_BYTES:
            self._give_up(f"the answer has a head of more than {MOST_HEAD_BYTES:,} bytes")
            return
        if self._kept_bytes > MOST_KEPT_BYTES:
            self._give_up(f"the answer has a body of more than {MOST_KEPT_BYTES:,} bytes")
            return
        if self._is_released and self._complete:
            self.close()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that is not complete by now never will be; without a length, this was its end."""
        if exc is None and self._status and self._transport and not self._headers.keys() & _LENGTHS:
            self._complete = True
        self._fail(ConnectionBroken(str(exc) if exc else "the connection was closed in mid-answer"))
        self.close()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The status is known."""
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """A piece of the body, already without its transfer encoding."""
        self._pieces.append(body)
        self._kept_bytes += len(body)

    def on_message_complete(self) -> None:
        """The answer is complete; only now does the parser know whether the connection goes on."""
        self._complete = True
        self._keeps_open = self._parser.should_keep_alive()


async def fetch(
    endpoint: Endpoint, method: str, target: str, body: bytes = b"", *, silence_seconds: float
) -> tuple[int, bytes]:
    """Status and body of one short answer. Raises ``ConnectionBroken`` and ``ConnectionSilent``."""
    async with Exchange(
        endpoint=endpoint, method=method, target=target, body=body, silence_seconds=silence_seconds
    ) as exchange:
        status = await exchange.status()
        return status, await exchange.read_all()


class EventSplitter:
    """Splits a stream of server-sent events into their data, however it is cut into pieces.

    Comments and other fields are dropped; data of several lines is joined, as the format says.
    """

    def __init__(self) -> None:
        self._rest = _Rest()

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that are complete now, in order. Raises ``ConnectionBroken``."""
        whole = self._rest.joined(data)
        if whole is None:
            return []
        if b"\r" in whole:
            whole = whole.replace(b"\r\n", b"\n")
        blocks = whole.split(b"\n\n")
        self._rest.keep(blocks.pop())
        return [event for block in blocks if (event := _event_data(block)) is not None]


class LineSplitter:
    """Splits a stream of lines, however it is cut into pieces; empty ones are dropped."""

    def __init__(self) -> None:
        self._rest = _Rest()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, in order. Raises ``ConnectionBroken``."""
        whole = self._rest.joined(data)
        if whole is None:
            return []
        lines = whole.split(b"\n")
        self._rest.keep(lines.pop())
        return [line for line in lines if line.strip()]

    def rest(self) -> bytes:
        """What came after the last end of a line: a last line may have none."""
        return self._rest.whole().strip()


class _Rest:
    """The beginning of what has not ended yet. Pieces without a line's end are joined only once."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._bytes_count = 0

    def joined(self, data: bytes) -> bytes | None:
        """All that there is now; None while no line has ended. Raises ``ConnectionBroken``."""
        if not self._pieces:
            return data
        self._pieces.append(data)
        self._bytes_count += len(data)
        if b"\n" not in data:
            self._check()
            return None
        return self.whole()

    def keep(self, rest: bytes) -> None:
        """What of it has not ended. Raises ``ConnectionBroken``."""
        self._pieces = [rest] if rest else []
        self._bytes_count = len(rest)
        self._check()

    def whole(self) -> bytes:
        """The pieces as one."""
        return b"".join(self._pieces)

    def _check(self) -> None:
        if self._bytes_count > MOST_EVENT_BYTES:
            raise ConnectionBroken(f"the answer has more than {MOST_EVENT_BYTES:,} bytes without end")


def _event_data(block: bytes) -> bytes | None:
    """The data of one event; None where it has none."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
