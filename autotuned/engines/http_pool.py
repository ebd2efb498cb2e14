"""Connections to one far server that are kept for the next request: a TLS handshake costs two round trips.

An engine makes a pool for each server and gives it to its exchanges. Invariants: what is kept is a
connection whose last answer was read to its end; one that the server closes, or says anything on, is
never handed out; after ``close`` nothing is kept.
"""

from __future__ import annotations

import asyncio

# Servers and the boxes in between close idle connections after a minute or so, seldom sooner than this.
IDLE_SECONDS = 30.0
MOST_IDLE = 8


class _Idle(asyncio.Protocol):
    """Watches a connection that nobody uses."""

    def __init__(self, pool: ConnectionPool, transport: asyncio.Transport) -> None:
        self._pool = pool
        self.transport = transport
        self.timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, pool.drop, self)

    def data_received(self, data: bytes) -> None:
        """Nothing was asked: whatever this is, the connection is of no use."""
        _ = data
        self._pool.drop(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed it."""
        _ = exc
        self._pool.drop(self)


class ConnectionPool:
    """Idle connections to one server, the one used last first."""

    def __init__(self) -> None:
        self._idle: list[_Idle] = []
        self._is_closed = False

    @property
    def idle_count(self) -> int:
        """Connections that wait for a request."""
        return len(self._idle)

    def take(self) -> asyncio.Transport | None:
        """A connection for one request; None where none is kept."""
        while self._idle:
            idle = self._idle.pop()
            idle.timer.cancel()
            if not idle.transport.is_closing():
                return idle.transport
        return None

    def give(self, transport: asyncio.Transport) -> None:
        """Keeps a connection for the next request, for as long as it may wait."""
        if self._is_closed or transport.is_closing() or len(self._idle) >= MOST_IDLE:
            transport.abort()
            return
        idle = _Idle(self, transport)
        transport.set_protocol(idle)
        self._idle.append(idle)

    def drop(self, idle: _Idle) -> None:
        """Closes a connection that is of no use any more."""
        idle.timer.cancel()
        if idle in self._idle:
            self._idle.remove(idle)
        idle.transport.abort()

    def close(self) -> None:
        """Closes all of them, and those that come back later."""
        self._is_closed = True
        while self._idle:
            self.drop(self._idle[-1])
