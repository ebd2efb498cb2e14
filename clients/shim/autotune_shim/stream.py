"""The response that carries a stream of events.

Made by ``generation`` for each streamed answer. Invariants: the headers go out with the first bytes,
so that until then a failure can still have an HTTP status; writes never interleave.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from starlette.types import Send

from autotune_shim.exchange import StreamAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When a waiting client gets a sign of life.

    ``header_grace_seconds``: how long a failure may still become an HTTP status; then the headers go
    out. ``keep_alive_seconds``: the silence after which a comment is sent.
    """

    header_grace_seconds: float = 5.0
    keep_alive_seconds: float = 10.0


class EventStream:
    """Sends bytes as they come; within ``async with``, also signs of life while none come."""

    def __init__(self, send: Send, answer: StreamAnswer, pace: Pace) -> None:
        self.started = False
        self.queue_position = 0
        self._send = send
        self._answer = answer
        self._pace = pace
        self._turn = asyncio.Lock()
        self._silent = True

    async def __aenter__(self) -> Self:
        self._beat = asyncio.get_running_loop().create_task(self._keep_alive())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beat.cancel()

    async def write(self, data: bytes) -> None:
        """Sends ``data``, after the headers. Waits while the client reads slower than the model writes."""
        async with self._turn:
            self._silent = False
            if not self.started:
                await self._send(
                    {
                        "type": "http.response.start",
                        "status": 200,
                        "headers": [
                            (b"content-type", self._answer.media_type),
                            (b"cache-control", b"no-cache"),
                            (b"x-accel-buffering", b"no"),
                        ],
                    }
                )
                self.started = True
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Ends the response."""
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: Exception) -> None:
        """Ends a response that has started with the error as its last event."""
        await self.write(self._answer.failure(error))
        await self.end()

    async def _keep_alive(self) -> None:
        await asyncio.sleep(self._pace.header_grace_seconds)
        while True:
            if self._silent and not self._turn.locked():
                await self.write(self._answer.waiting(self.queue_position))
            self._silent = True
            await asyncio.sleep(self._pace.keep_alive_seconds)
