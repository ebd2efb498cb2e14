"""One answer on the wire: lines of JSON, or all of them as one object, with the original's errors.

An endpoint hands its lines over; this sends them, plays the planned fault, and stops the work when
the client leaves.
Invariant: an error before the first line is a status of its own; afterwards it is a line inside the
stream with status 200.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from tests.fakes.ollama.observer import Fault, Observer
from tests.fakes.ollama.problems import Problem

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer that is one object, whether a stream was asked for or not."""

    value: Line


Lines = AsyncGenerator[Line | Whole, None]


class Closed(Exception):
    """The double closed the connection on purpose."""


class Exchange:
    """An answer that Starlette sends."""

    def __init__(
        self, lines: Lines, *, observer: Observer, stream: bool, fold: Callable[[list[Line]], Line]
    ) -> None:
        self._lines = lines
        self._observer = observer
        self._stream = stream
        self._fold = fold
        self._sent = 0
        self._fault: Fault | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._fault = scope.get("double.fault")
        answering = asyncio.create_task(self._answer(scope, send))
        leaving = asyncio.create_task(_until_gone(receive))
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            self._observer.cancelled += 1
        answering.cancel()
        leaving.cancel()
        with suppress(asyncio.CancelledError, Closed):
            await answering

    async def _answer(self, scope: Scope, send: Send) -> None:
        collected: list[Line] = []
        async with aclosing(self._lines) as lines:
            try:
                async for line in lines:
                    if isinstance(line, Whole):
                        await send_json(send, line.value)
                        return
                    if self._stream:
                        if not await self._send(scope, send, line):
                            return
                    else:
                        collected.append(line)
            except Problem as problem:
                if not self._sent:
                    await send_json(send, {"error": problem.message}, problem.status)
                    return
                await _send_line(send, {"error": problem.message})
        if self._stream:
            if not self._sent:
                await _start(send, "application/x-ndjson")
            await send({"type": "http.response.body"})
        elif await self._play(scope, send):
            await send_json(send, self._fold(collected))

    async def _send(self, scope: Scope, send: Send, line: Line) -> bool:
        """Whether the stream goes on."""
        if not self._sent:
            await _start(send, "application/x-ndjson")
        if self._fault is not None and self._fault.after == self._sent and not await self._play(scope, send):
            return False
        await asyncio.sleep(self._observer.faults.line_seconds)
        await _send_line(send, line)
        self._sent += 1
        return True

    async def _play(self, scope: Scope, send: Send) -> bool:
        """Fails as it was planned; True when nothing was."""
        fault = self._fault
        if fault is None or fault.after is None:
            return True
        if fault.kind == "error":
            if self._stream:
                await _send_line(send, {"error": fault.message})
                await send({"type": "http.response.body"})
            else:
                await send_json(send, {"error": fault.message}, fault.status)
            return False
        if fault.kind == "hang":
            await self._observer.faults.released.wait()
        scope["double.transport"].abort()
        raise Closed


def encoded(value: Line) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


async def send_json(send: Send, value: Line, status: int = 200) -> None:
    await _start(send, "application/json; charset=utf-8", status)
    await send({"type": "http.response.body", "body": encoded(value)})


async def _start(send: Send, media_type: str, status: int = 200) -> None:
    headers = [(b"content-type", media_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send_line(send: Send, line: Line) -> None:
    await send({"type": "http.response.body", "body": encoded(line) + b"\n", "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
