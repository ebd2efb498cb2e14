"""The worker's HTTP: one request on each connection, on a Unix socket of the daemon's.

``worker`` serves it on its main thread. An answer that streams is server-sent events in chunks; a client
that closes its connection wants the answer no more.
Invariant: it computes nothing itself, so that it hears a client leave at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec

from autotuned.engines.mlx import protocol
from autotuned.engines.mlx.inside.engine_thread import EngineThread, Work
from autotuned.engines.mlx.inside.problems import Problem, invalid

OK, BAD_REQUEST, NOT_FOUND, SERVER_ERROR = 200, 400, 404, 500
_REASONS = {OK: "OK", BAD_REQUEST: "Bad Request", NOT_FOUND: "Not Found", SERVER_ERROR: "Server Error"}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
_LAST_CHUNK = b"0\r\n\r\n"

_encode = msgspec.json.Encoder().encode


class Server:
    """Serves one engine thread."""

    def __init__(self, engine: EngineThread) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._active_count = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
                target, body = await _request(reader)
                await self._answer(target, body, reader, writer)
                await writer.drain()
        finally:
            writer.close()

    async def _answer(
        self, target: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if target == protocol.GENERATE_TARGET:
                await self._stream(_decoded(body, protocol.GenerateCall), reader, writer)
                return
            answer = await self._whole(target, body)
        except Problem as problem:
            status = SERVER_ERROR if problem.kind in {protocol.UNWRITTEN, protocol.FAILED} else BAD_REQUEST
            _write(writer, status, _encode(problem.body()))
            return
        _write(writer, NOT_FOUND if answer is None else OK, b"{}" if answer is None else _encode(answer))

    async def _whole(self, target: str, body: bytes) -> msgspec.Struct | None:
        """An answer that comes at once; None where there is nothing of that name. Raises ``Problem``."""
        if target == protocol.STATUS_TARGET:
            return self._engine.status(self._active_count)
        if target == protocol.COUNT_TARGET:
            prompt = _decoded(body, protocol.PromptData)
            return protocol.Counted(tokens_count=await asyncio.to_thread(self._engine.count, prompt))
        if target not in {protocol.SAVE_TARGET, protocol.RESTORE_TARGET}:
            return None
        call = _decoded(body, protocol.FileCall)
        do = self._engine.save if target == protocol.SAVE_TARGET else self._engine.restore
        written: list[protocol.Written] = []
        await self._done(lambda _work: written.append(do(call)))
        return written[0]

    async def _stream(
        self, call: protocol.GenerateCall, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Chunks as they come, the last one an error where it failed."""
        is_begun = False

        def write(chunk: dict[str, Any]) -> None:
            nonlocal is_begun
            data = b"data: " + _encode(chunk) + b"\n\n"
            head = b"" if is_begun else _STREAM_HEAD
            is_begun = True
            writer.write(head + b"%x\r\n%b\r\n" % (len(data), data))

        def emit(chunk: dict[str, Any]) -> None:
            self._loop.call_soon_threadsafe(write, chunk)

        try:
            await self._done(lambda work: self._engine.generate(work, call, emit), reader)
        except Problem as problem:
            write(problem.body())
        writer.write(_LAST_CHUNK)

    async def _done(self, do: Callable[[Work], None], reader: asyncio.StreamReader | None = None) -> None:
        """Returns when the engine has done it, or let go because the client left. Raises ``Problem``."""
        ended: asyncio.Future[Problem | None] = self._loop.create_future()

        def end(problem: Problem | None) -> None:
            self._loop.call_soon_threadsafe(ended.set_result, problem)

        work = Work(do, end)
        left: asyncio.Future[Any] | None = asyncio.ensure_future(reader.read(1)) if reader else None
        self._active_count += 1
        try:
            self._engine.submit(work)
            if left is not None:
                await asyncio.wait([ended, left], return_when=asyncio.FIRST_COMPLETED)
                work.is_wanted = False
            problem = await ended
        finally:
            self._active_count -= 1
            if left is not None:
                left.cancel()
        if problem is not None:
            raise problem


async def _request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Target and body. Raises what ``StreamReader`` raises."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head.split("\r\n")
    length = next(
        (int(field.partition(":")[2]) for field in fields if field.lower().startswith("content-length:")), 0
    )
    return line.split(" ")[1], await reader.readexactly(length)


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise invalid("request", f"it cannot be read ({error}).") from error


def _write(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
